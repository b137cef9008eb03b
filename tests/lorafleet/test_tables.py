"""Every table at 80 columns, whatever is in it: the name and the state of each row can be read, and no line is wider."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

import lorafleet
from lorafleet import output, tables, terminal
from lorafleet.batch.view import screen
from lorafleet.commands import administration
from lorafleet.commands.batch import printing
from lorafleet.control_characters import is_harmless, visible
from lorafleet.progress_view import bars_of
from lorafleet.terminal import literal_console
from lorafleet.v1 import access_service_pb2 as access_pb
from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import training_service_pb2 as pb
from tests.lorafleet.jobs import a_job
from tests.lorafleet.shown import ODD, shown, width_of

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
LONG_ID = "a-style-whose-name-is-as-long-as-allowed"  # 40 letters


def odd_job(odd: str, id: str = "fox", state: str = "FAILED") -> pb.TrainingJob:
    job = a_job(id, state, step=120, message=odd, reason="CORRUPT_PICTURES", output_uri=f"file:///{odd}")
    job.progress.phase = odd or "training"
    job.progress.held_out_loss_base, job.progress.held_out_loss = 0.3312, 0.0874
    job.attempts.add(number=1, run="run-0123456789abcdef", reason="CORRUPT_PICTURES", message=odd)
    return job


def a_batch() -> batch_pb.Batch:
    counts = [batch_pb.StateCount(state=state, count=1_000_000) for state in (6, 4, 5, 3, 2, 1, 8, 7)]
    return batch_pb.Batch(name="tenants/acme/batches/tonight-of-thirty-letters-long", num_jobs=8_000_000, counts=counts)


def a_plan(odd: str) -> batch_pb.PlanBatchResponse:
    packs = [batch_pb.PlannedPack(items=[0, 1], memory_bytes=2**34, closed_by="MEMORY", key=odd)]
    return batch_pb.PlanBatchResponse(packs=packs)


BARS: Callable[[str], Any] = lambda odd: bars_of([odd_job(odd), odd_job(odd, LONG_ID)])  # noqa: E731
JOB_TABLES: dict[str, Callable[[str], Any]] = {
    "list": lambda odd: output.table_of([odd_job(odd), odd_job(odd, LONG_ID)], NOW),
    "watch": BARS,
    "batch watch": lambda odd: screen("tenants/acme/batches/b", [odd_job(odd), odd_job(odd, LONG_ID)], NOW),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("table", JOB_TABLES)
@pytest.mark.parametrize("width", [60, 80, 200])
def test_jobs_keep_name_and_state(table: str, odd: str, width: int) -> None:
    lines = shown(JOB_TABLES[table](ODD[odd]), width)
    assert width_of(lines) <= width
    assert all(map(is_harmless, lines))
    assert sum(re.match(r"(fox|a-style-whose-name-is-as-long-as-allowed) +FAILED\b", line) is not None for line in lines) == 2


@pytest.mark.parametrize("odd", ODD)
def test_runs_on_the_screen_of_a_batch_keep_their_names(odd: str) -> None:
    lines = shown(screen("b", [odd_job(ODD[odd], state="RUNNING")], NOW))
    assert width_of(lines) <= 80
    assert sum(line.startswith("run-0123456789abcdef ") for line in lines) == 1


@pytest.mark.parametrize("odd", ODD)
def test_details_lose_nothing(odd: str) -> None:
    lines = shown(output.details_of(odd_job(ODD[odd])))
    assert width_of(lines) <= 80
    assert all(map(is_harmless, lines))
    assert any(re.fullmatch(r"state +FAILED", line) for line in lines)
    values = [line[lines[0].index("tenants/") :] for line in lines]
    assert "".join(visible(ODD[odd]).split()) in "".join("".join(values).split())


@pytest.mark.parametrize("width", [60, 80, 200])
def test_batches_tell_all_their_states(width: int) -> None:
    lines = shown(printing._table([a_batch()]), width)
    assert width_of(lines) <= width
    assert "tonight-of-thirty-letters-long" in lines[1]
    for name in ("succeeded", "running", "stopping", "starting", "admitted", "queued", "cancelled", "failed"):
        assert name in " ".join(lines)
    assert width_of(shown(printing._details(a_batch()), width)) <= width


@pytest.mark.parametrize("odd", ODD)
def test_a_plan_keeps_the_numbers_of_its_packs(odd: str) -> None:
    lines = shown(printing._plan_table(a_plan(ODD[odd]), [ODD[odd], LONG_ID]))
    assert width_of(lines) <= 80
    assert lines[1].startswith("1")


def resources(odd: str) -> dict[tuple[str, ...], list[Any]]:
    tenant = access_pb.Tenant(name="tenants/acme", display_name=odd, weight=1.5, max_gpus=1e6, max_running_jobs=10_000)
    tenant.max_queued_jobs, tenant.store_credentials, tenant.etag, tenant.is_isolated = 100_000, odd, "0123456789abcdef", True
    token = access_pb.ApiToken(name="tenants/acme/apiTokens/t", display_name=odd, role=access_pb.ROLE_SUBMITTER, created_by=odd)
    event = access_pb.AuditEvent(principal=f"oidc:{odd}", method="CreateTrainingJob", resource=odd, peer=odd, code="OK", reason=odd)
    for time in (token.expire_time, token.revoke_time, event.time):
        time.GetCurrentTime()
    return {
        administration.TENANT: [tenant],
        administration.MEMBER: [access_pb.Member(principal="oidc:ada", role=access_pb.ROLE_VIEWER)],
        administration.TOKEN: [token],
        administration.GRANT: [access_pb.Grant(prefix="s3://bucket/", may_write=True)],
        administration.RESERVATION: [access_pb.Reservation(name="tenants/acme/reservations/r", gpus=8)],
        administration.EVENT: [event],
    }


KEPT = ("tenants/acme", "oidc:ada", "tenants/acme/apiTokens/t", "s3://bucket/", "tenants/acme/reservations/r", "20")


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", range(6))
def test_administrators_tables_keep_what_is_copied_from_them(odd: str, kind: int) -> None:
    columns, rows = list(resources(ODD[odd]).items())[kind]
    lines = shown(administration._table(rows, columns))
    assert width_of(lines) <= 80
    assert all(map(is_harmless, lines))
    assert lines[1].startswith(KEPT[kind])


@pytest.mark.parametrize("width", [80, 200])
def test_a_time_is_told_whole_or_not_at_all(width: int) -> None:
    grants = [access_pb.Grant(prefix="s3://bucket/" + "a/" * 120), access_pb.Grant(prefix="s3://b/")]
    for grant in grants:
        grant.create_time.FromJsonString("2026-07-01T12:34:56.123456Z")
    told = "\n".join(shown(administration._table(grants, administration.GRANT), width))
    assert "123456" not in told
    assert told.count("2026-07-01 12:34:56 UTC") == ("CREATE_TIME" in told) * 2


def test_the_audit_log_tells_each_method_in_one_line() -> None:
    event = access_pb.AuditEvent(principal="oidc:root", method="lorafleet.v1.TrainingService/CreateTrainingJob", code="INVALID_ARGUMENT")
    event.time.FromJsonString("2026-07-01T12:34:56.123456Z")
    _, line = shown(administration._table([event], administration.EVENT))
    assert line.split("  ") == ["2026-07-01 12:34:56 UTC", "oidc:root", "CreateTrainingJob", "INVALID_ARGUMENT"]


def test_a_failure_without_a_message_tells_its_reason() -> None:
    jobs = [odd_job("")]
    assert all("CORRUPT_PICTURES" in shown(table)[-1] for table in (output.table_of(jobs, NOW), output.endings_of(jobs)))


def test_the_message_shrinks_before_any_column_leaves() -> None:
    job = odd_job("m" * 300)
    job.progress.phase, job.progress.pictures_per_second = "training", 53.1
    job.create_time.GetCurrentTime()
    lines = shown(output.table_of([job], NOW), 115)
    assert lines[0].split() == ["JOB", "STATE", "PHASE", "STEP", "LOSS", "HELD-OUT", "PICTURES/S", "AGE", "MESSAGE"]
    assert lines[1].endswith("…")


def test_a_column_without_a_value_leaves_its_room_to_the_message() -> None:
    lines = shown(output.table_of([odd_job("m" * 300)], NOW), 200)
    assert "PICTURES/S" not in lines[0]
    assert "PICTURES/S" in shown(output.table_of([odd_job("m")], NOW), 200)[0]


@pytest.mark.parametrize("odd", ODD)
def test_endings_are_told_whole_with_the_names_of_those_that_ended_alike(odd: str) -> None:
    jobs = [odd_job(ODD[odd], id) for id in ("fox", LONG_ID, "hare")] + [odd_job("another reason", "owl")]
    lines = shown(output.endings_of(jobs))
    assert width_of(lines) <= 80
    assert re.match(r"fox +FAILED", lines[0])
    assert lines[-1].split()[:4] == ["owl", "FAILED", "another", "reason"]
    assert "…" not in "".join(lines)
    if ODD[odd]:
        assert "likewise" in "".join(lines)
        assert LONG_ID in "".join(line[13:] for line in lines)


def test_numbers_leave_and_are_never_cut() -> None:
    for width in range(24, 120):
        heading, row = shown(output.table_of([odd_job("m" * 300)], NOW), width)
        assert "…" not in row.rpartition("  ")[0], width
        assert heading.split()[:2] == ["JOB", "STATE"]


def test_a_name_folds_where_nothing_else_helps_and_is_whole() -> None:
    lines = shown(output.table_of([odd_job("", LONG_ID)], NOW), 24)
    assert width_of(lines) <= 24
    assert "".join(line[:8].strip() for line in lines[1:] if line).startswith(LONG_ID[:8])
    assert "".join(line.split()[0] for line in lines[1:]) == LONG_ID
    assert "FAILED" in lines[1]


def test_wide_letters_keep_the_columns_in_line() -> None:
    rows = [("日本語", "A"), ("👩", "B"), ("abcdef", "C")]
    lines = shown(tables.Table([tables.name("NAME"), tables.state("S")], rows))
    assert lines == ["NAME    S", "日本語  A", "👩      B", "abcdef  C"]


def test_colours_of_a_state_stay() -> None:
    [_, line] = shown(tables.Table([tables.state("S")], [(Text("FAILED", style="red"),)]), colours=True)
    assert line == "\x1b[31mFAILED\x1b[0m"


def test_an_encoding_without_our_letters_gets_others_of_known_width() -> None:
    file = TextIOWrapper(BytesIO(), encoding="ascii", errors=terminal.ERRORS)
    literal_console(file=file, width=80).print(output.table_of([odd_job("→ " + "m" * 300)], NOW))
    file.flush()
    lines = file.buffer.getvalue().decode().splitlines()  # pyright: ignore[reportAttributeAccessIssue]
    assert width_of(lines) == 80
    assert "-> mmm" in lines[1]


def test_tables_are_laid_out_in_one_place() -> None:
    root = Path(lorafleet.__file__).parents[1]
    users = [
        path for package in ("lorafleet", "service") for path in (root / package).rglob("*.py") if "rich.table import" in path.read_text()
    ]
    assert [path.relative_to(root).as_posix() for path in users] == ["lorafleet/batch/view.py"]  # the grid of its bar
