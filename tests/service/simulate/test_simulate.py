"""The simulator: every job's life adds up, the same load gives the same lives, and its reports say what happened."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lorafleet.cli import app
from lorafleet.errors import InvalidInput
from service.control.admission import AdmissionPolicy
from service.control.capacity import Resources
from service.control.quotas import Quota
from service.simulate import trace
from service.simulate.engine import CHECKPOINT_S, RESUME_S, SimulationResult, World, by_admission, by_fifo, simulate
from service.simulate.fairness import jain, max_min
from service.simulate.report import summed_up
from service.simulate.trace import TraceJob


def job(number: int, gpus: float = 1, duration_s: float = 600, submit_s: float = 0, **changes) -> TraceJob:
    return TraceJob(**{"uid": f"j{number}", "submit_s": submit_s, "tenant": "acme", "gpus": gpus, "duration_s": duration_s, **changes})


def lived(jobs: Sequence[TraceJob], gpus: float = 8, quotas: dict[str, Quota] | None = None, decide=None) -> SimulationResult:
    world = World(capacity=Resources(gpus, math.inf, math.inf), quotas=quotas or {})
    return simulate(jobs, world, decide or by_admission(AdmissionPolicy(look_ahead=200)))


def most_gpus_at_once(outcome: SimulationResult) -> float:
    """By the lives alone. Only of jobs that were not preempted."""
    changes = [(life.first_start_s, life.job.gpus) for life in outcome.lives] + [(life.end_s, -life.job.gpus) for life in outcome.lives]
    most = held = 0.0
    for _, gpus in sorted(changes):
        held += gpus
        most = max(most, held)
    return most


jobs_of_all_kinds = st.lists(
    st.builds(
        job,
        st.integers(),
        gpus=st.sampled_from([0, 1, 1, 2, 4, 8]),
        duration_s=st.floats(60, 20_000),
        submit_s=st.floats(0, 10_000),
        tenant=st.sampled_from(["acme", "blue"]),
        priority=st.sampled_from([-10, 0, 60]),
    ),
    min_size=1,
    max_size=25,
    unique_by=lambda made: made.uid,
).map(lambda made: sorted(made, key=lambda one: one.submit_s))


@settings(deadline=None, max_examples=50)
@given(jobs_of_all_kinds, st.booleans())
def test_every_job_ends_once_after_it_was_submitted_and_gpus_are_never_given_twice(jobs, preempts):
    rules = AdmissionPolicy() if preempts else AdmissionPolicy(preempts_from=None)
    outcome = lived(jobs, decide=by_admission(rules))
    for life in outcome.lives:
        assert life.first_start_s is not None
        assert life.end_s is not None
        assert life.first_start_s >= life.job.submit_s
        at_work_s = life.job.duration_s + life.num_preemptions * (RESUME_S + CHECKPOINT_S)
        assert life.end_s - life.first_start_s >= life.job.duration_s - 1e-6
        assert life.num_preemptions or life.end_s - life.first_start_s == pytest.approx(at_work_s)
    assert preempts or most_gpus_at_once(outcome) <= 8


def test_a_preempted_job_keeps_what_it_has_done():
    jobs = [job(0, 8, 10_000, priority=-10), job(1, 8, 1000, submit_s=5000, priority=60)]
    low, high = lived(jobs).lives
    assert (low.num_preemptions, high.num_preemptions) == (1, 0)
    assert high.first_start_s is not None
    assert high.first_start_s - 5000 <= 60 + CHECKPOINT_S + 60
    assert low.end_s is not None
    assert low.end_s < 10_000 + 1000 + RESUME_S + CHECKPOINT_S + 200, "5,000 of its 10,000 seconds were not lost"


def test_small_jobs_pass_a_large_one_that_loses_nothing_by_it_and_not_in_a_plain_queue():
    jobs = [job(0, 6, 1000), job(1, 8, 1000, submit_s=1), job(2, 2, 500, submit_s=2, max_run_time_s=600)]
    _, large, small = lived(jobs).lives
    _, large_then, small_then = lived(jobs, decide=by_fifo).lives
    assert large.first_start_s == large_then.first_start_s
    assert small.first_start_s is not None
    assert small_then.first_start_s is not None
    assert small.first_start_s < 100
    assert small_then.first_start_s == 2000


def test_a_quota_holds_and_what_can_never_start_is_reported():
    jobs = [job(0, 2), job(1, 4), job(2, 16)]
    outcome = lived(jobs, quotas={"acme": Quota(max_gpus=2)})
    report = summed_up(outcome)
    assert (report.num_never_started, report.num_unfinished, report.all.num_jobs) == (2, 2, 1)


def test_the_same_seed_makes_the_same_load_and_the_same_lives():
    first, again = (trace.made(300, 7, 32) for _ in range(2))
    assert first == again
    assert first != trace.made(300, 8, 32)
    assert summed_up(lived(first, 32)) == summed_up(lived(again, 32))


def test_admission_beats_a_plain_queue_where_it_should():
    """On one made load: the median wait, and that of the class high; and it leaves no more GPUs idle."""
    jobs = trace.made(1500, 1, 64, load=0.9)
    ours, plain = summed_up(lived(jobs, 64)), summed_up(lived(jobs, 64, decide=by_fifo))
    assert ours.all.p50_s < plain.all.p50_s / 2
    assert ours.by_class["high"].p99_s < plain.by_class["high"].p99_s
    assert ours.utilisation > plain.utilisation - 0.01


@pytest.mark.parametrize("seed", range(1, 6))
def test_within_a_class_tenants_are_served_more_evenly_than_in_a_plain_queue(seed: int):
    """Only within a class: classes come before fair shares, and a made load's tenants have different mixes of them."""
    jobs = [replace(made, priority=0) for made in trace.made(1500, seed, 64, load=0.9)]
    assert summed_up(lived(jobs, 64)).fairness > summed_up(lived(jobs, 64, decide=by_fifo)).fairness + 0.1


def test_a_job_that_has_waited_into_the_high_class_gets_on_although_that_class_wants_its_place():
    """It would start, be pushed aside and start again for ever."""
    high = [job(n, 8, 3600, submit_s=n * 3000, priority=60) for n in range(1, 30)]
    (low, *_) = lived([job(0, 8, 30_000, priority=-10), *high]).lives
    assert low.end_s is not None


def test_fairness_is_one_when_all_have_their_part_and_one_of_n_when_one_has_all():
    assert jain([2.0, 2.0, 2.0]) == 1
    assert jain([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    parts = max_min(10, {"a": 1, "b": 20, "c": 20}, {"c": 2})
    assert parts == pytest.approx({"a": 1, "b": 3, "c": 6})


def test_a_trace_is_read_from_csv_and_from_jsonl(tmp_path: Path):
    (tmp_path / "t.csv").write_text("submit_s,tenant,gpus,duration_s,priority\n5,acme,2,60,\n1,blue,1,30,60\n")
    (tmp_path / "t.jsonl").write_text('{"submit_s": 1, "tenant": "blue", "gpus": 1, "duration_s": 30, "max_run_time_s": 90}\n')
    first, second = trace.read(tmp_path / "t.csv")
    assert (first.tenant, first.priority, second.gpus, second.priority) == ("blue", 60, 2, 0)
    assert trace.read(tmp_path / "t.jsonl")[0].max_run_time_s == 90


@pytest.mark.parametrize("line", ["x,acme,1,60", "1,acme,-1,60", "1,acme,1,0", "1,acme,1,inf"])
def test_a_line_that_makes_no_sense_is_named(tmp_path: Path, line: str):
    (tmp_path / "t.csv").write_text(f"submit_s,tenant,gpus,duration_s\n1,acme,1,60\n{line}\n")
    with pytest.raises(InvalidInput, match=r"t\.csv:3"):
        trace.read(tmp_path / "t.csv")


def cli(*arguments: str):
    return CliRunner().invoke(app, ["simulate", *arguments])


def test_the_command_prints_json_and_draws(tmp_path: Path):
    picture = tmp_path / "waits.png"
    made = cli("--make", "60", "--capacity-gpus", "16", "--weight", "tenant-01=2", "--fifo", "-o", "json", "--plot", str(picture))
    assert made.exit_code == 0, made.output
    reports = json.loads(made.stdout)
    assert set(reports) == {"admission", "fifo"}
    assert reports["admission"]["all"]["num_jobs"] == 60
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_the_command_prints_a_table_of_tenants_and_classes():
    made = cli("--make", "40", "--capacity-gpus", "16")
    assert made.exit_code == 0
    assert "FAIRNESS" in made.stdout
    assert "class normal" in made.stdout
    assert "tenant tenant-00" in made.stdout


def test_the_command_reads_a_trace_and_prints_yaml(tmp_path: Path):
    (tmp_path / "trace.csv").write_text("submit_s,tenant,gpus,duration_s\n1,acme,1,60\n5,blue,2,90\n")
    ran = cli(str(tmp_path / "trace.csv"), "--capacity-gpus", "4", "-o", "yaml")
    assert ran.exit_code == 0, ran.output
    assert not ran.stdout.startswith("{"), "that would be JSON"
    assert yaml.safe_load(ran.stdout)["admission"]["all"]["num_jobs"] == 2


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ([], "give either a TRACE or --make NUMBER"),
        (["nowhere.csv", "--make", "5"], "give either a TRACE or --make NUMBER"),
        (["--make", "5", "--weight", "acme"], "--weight: 'acme' is not TENANT=NUMBER"),
        (["--make", "5", "--weight", "acme=2"], "--weight: the load has no jobs of 'acme'; it has some of tenant-"),
        (["--make", "5", "--max-gpus", "acme=2"], "--max-gpus: the load has no jobs of 'acme'"),
        (["--make", "0"], "Invalid value for '--make'"),
    ],
)
def test_wrong_usage_is_told_and_exits_with_2(wrong: list[str], told: str):
    ran = cli(*wrong)
    assert (ran.exit_code, told in ran.stderr) == (2, True), ran.stderr
