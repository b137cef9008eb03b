"""Metrics: what happens shows, by the names that the table, the dashboard and the alerts have; and labels stay few."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import yaml

from lorafleet.v1 import report_service_pb2 as rpb
from lorafleet.v1 import training_service_pb2 as pb
from service.core import telemetry
from service.core.resource_names import JobName
from service.db import jobs
from service.observability import metrics as metrics_module
from service.observability.health import Pulse, Readiness, database_check
from service.observability.metrics import MAX_TENANTS, METRICS, MetricsCollector, metrics_page
from tests.service.api.conftest import api  # noqa: F401 (a fixture)
from tests.service.api.served import Api
from tests.service.world import World, progress

REPOSITORY = Path(__file__).parents[3]
DASHBOARD = REPOSITORY / "deploy/dashboards/lorafleet.json"
ALERTS = REPOSITORY / "deploy/dashboards/alerts.yaml"
NAMES = {metric.name for metric in METRICS}


@pytest.fixture
def metrics() -> Iterator[MetricsCollector]:
    heard = MetricsCollector()
    telemetry.listen(heard)
    yield heard
    telemetry.listen(None)


def value(metrics: MetricsCollector, sample: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(sample, labels) or 0.0


async def page(metrics: MetricsCollector, world: World) -> str:
    readiness = Readiness({"database": database_check(world.tools.db)})
    return (await metrics_page(metrics, world.tools.db, Pulse(), readiness)()).body.decode()


async def test_the_way_of_a_job_shows(metrics: MetricsCollector, world: World):
    name = await world.submit("a")
    world.clock.advance(7)
    await world.settle()
    world.clock.advance(3)
    await world.report(world.backend.launches[-1], progress(1))
    assert value(metrics, "lorafleet_job_admission_seconds_sum") == pytest.approx(7)
    assert value(metrics, "lorafleet_job_first_step_seconds_sum") == pytest.approx(10)
    assert value(metrics, "lorafleet_job_moves_total", state="RUNNING") == 1
    assert await world.state(name) == "RUNNING"
    text = await page(metrics, world)
    assert 'lorafleet_jobs{state="RUNNING",tenant="acme"} 1.0' in text
    assert 'lorafleet_runs{state="LAUNCHED"} 1.0' in text
    assert value(metrics, "lorafleet_events_appended_total") >= 4


async def test_the_age_of_the_queue_shows(metrics: MetricsCollector, world: World):
    await world.submit("a")
    world.clock.advance(120)
    assert "lorafleet_oldest_queued_seconds 120.0" in await page(metrics, world)


async def test_what_is_rolled_back_is_not_counted(metrics: MetricsCollector, world: World):
    await world.submit("a")
    before = value(metrics, "lorafleet_events_appended_total")

    async def fails_before_its_commit() -> None:
        async with world.tools.db.transaction() as tx:
            row = await jobs.by_name(tx, "acme", "a")
            assert row is not None
            tx.touch(row)
            await tx.session.flush()
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        await fails_before_its_commit()
    assert value(metrics, "lorafleet_events_appended_total") == before


async def test_rpcs_show_by_method_and_code(metrics: MetricsCollector, api: Api):  # noqa: F811
    await api.jobs.CreateTrainingJob(api.request())
    with pytest.raises(grpc.aio.AioRpcError):
        await api.jobs.GetTrainingJob(pb.GetTrainingJobRequest(name="tenants/acme/jobs/none"))
    with pytest.raises(grpc.aio.AioRpcError):
        await api.channel.unary_unary("/lorafleet.v1.TrainingService/Invented")(b"")
    assert value(metrics, "lorafleet_rpcs_total", method="TrainingService/CreateTrainingJob", code="OK") == 1
    assert value(metrics, "lorafleet_rpcs_total", method="TrainingService/GetTrainingJob", code="NOT_FOUND") == 1
    assert value(metrics, "lorafleet_rpcs_total", method="unknown", code="UNIMPLEMENTED") == 1
    assert value(metrics, "lorafleet_rpc_errors_total", reason="JOB_NOT_FOUND") == 1
    assert value(metrics, "lorafleet_rpc_seconds_count", method="TrainingService/CreateTrainingJob") == 1


async def test_watchers_are_counted_while_they_watch(metrics: MetricsCollector, api: Api):  # noqa: F811
    watch = api.jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(parent="tenants/acme"))
    await watch.read()
    assert value(metrics, "lorafleet_watchers") == 1
    watch.cancel()
    deadline = asyncio.get_running_loop().time() + 10
    while value(metrics, "lorafleet_watchers") and asyncio.get_running_loop().time() < deadline:
        await api.jobs.ListTrainingJobs(pb.ListTrainingJobsRequest(parent="tenants/acme"))  # the server's turn
    assert value(metrics, "lorafleet_watchers") == 0


async def test_a_report_without_a_good_token_is_an_auth_failure(metrics: MetricsCollector, api: Api):  # noqa: F811
    with pytest.raises(grpc.aio.AioRpcError):
        await api.reports.Report(rpb.ReportRequest(run="run-1", source="x"))
    assert value(metrics, "lorafleet_auth_failures_total", reason="BAD_RUN_TOKEN") == 1


async def test_ten_thousand_tenants_are_a_hundred_series(metrics: MetricsCollector, world: World):
    counted = [("QUEUED", f"t{number}", 1) for number in range(10_000)] + [("QUEUED", "big", 50)]
    found = dict(metrics_module._capped(counted))
    assert len(found) == MAX_TENANTS + 1
    assert found["QUEUED", "big"] == 50
    assert sum(found.values()) == 10_050


async def test_a_tenant_whose_jobs_are_gone_is_no_series_any_more(metrics: MetricsCollector, world: World):
    name = await world.submit("a")
    assert 'tenant="acme"' in await page(metrics, world)
    await world.jobs.cancel(JobName(name.tenant, name.job_id))
    assert 'tenant="acme"' not in await page(metrics, world)


def test_every_metric_that_is_told_is_in_the_table_and_every_one_in_the_table_is_told():
    told: set[str] = set()
    for path in (REPOSITORY / "service").rglob("*.py"):
        if path.name != "metrics.py":
            told |= set(re.findall(r'"(lorafleet_[a-z_]+_(?:total|seconds|in_flight)|lorafleet_watchers)"', path.read_text()))
    told |= {f"lorafleet_{kind}_{end}" for kind in ("store", "backend") for end in ("calls_total", "call_seconds")}
    counted_at_the_scrape = {"build_info", "ready", "jobs", "oldest_queued_seconds", "runs", "standby_groups", "loop_lag_seconds"}
    assert told | {f"lorafleet_{name}" for name in counted_at_the_scrape} == NAMES


def queries() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard and of the alerts, with where it stands."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", []))
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])


async def test_dashboard_and_alerts_query_only_what_the_side_port_shows(metrics: MetricsCollector, world: World):
    shown = set(re.findall(r"^# TYPE (\S+)", await page(metrics, world), flags=re.MULTILINE))
    series = {f"{name}{end}" for name in shown for end in ("", "_bucket", "_sum", "_count")} | {"up"}
    for where, query in queries():
        asked = set(re.findall(r"\b(?:lorafleet|process)_[a-z_]+\b", query))
        assert asked, where
        assert asked <= series, where


def test_queries_name_labels_that_the_metrics_have():
    labels = {metric.name: set(metric.labels) for metric in METRICS}
    for where, query in queries():
        for name, matchers in re.findall(r"\b(lorafleet_[a-z_]+?)(?:_bucket)?\{([^}]*)\}", query):
            asked = set(re.findall(r"(\w+)\s*[=!]", matchers)) - {"instance"}
            assert asked <= labels[name], where


def test_every_metric_is_on_the_dashboard():
    shown = " ".join(query for _, query in queries())
    assert {name for name in NAMES if name not in shown} == set()


def test_every_alert_says_what_to_do():
    guide = (REPOSITORY / "docs/operations.md").read_text()
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"page", "ticket"}
            assert rule["annotations"]["summary"]
            assert f"### {rule['alert']}\n" in guide, "the runbook has a heading for each alert"


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_prometheus(metric: metrics_module.Metric):
    assert metric.help.endswith(".") or metric.help.endswith("label.")
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.kind != "histogram" or metric.name.endswith("_seconds")


def test_telling_costs_little(metrics: MetricsCollector):
    """A bound far above what it is (about a microsecond and a half on a machine at rest): it must never become I/O."""
    import timeit

    per_call_s = timeit.timeit(lambda: telemetry.count("lorafleet_rpcs_total", method="m", code="OK"), number=20_000) / 20_000
    assert per_call_s < 100e-6


def test_the_table_of_the_handbook_is_the_table_of_the_code():
    rows = re.findall(
        r"^\| `(lorafleet_\w+)` \| (\w+) \| ([\w, ]*) ?\| (.*) \|$", (REPOSITORY / "docs/operations.md").read_text(), re.MULTILINE
    )
    told = {name: (kind, labels.strip(), meaning) for name, kind, labels, meaning in rows}
    assert told == {metric.name: (metric.kind, ", ".join(metric.labels), metric.help) for metric in METRICS}
