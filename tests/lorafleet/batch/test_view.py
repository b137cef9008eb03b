"""Hundreds of styles on one screen, and in a log."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from rich.console import Console

from lorafleet.batch.summary import held_out_ratio, summarize, worst_first
from lorafleet.batch.view import packs_of, screen, sentence, shares, view_on
from lorafleet.states import job_id
from lorafleet.v1 import training_service_pb2 as pb
from tests.lorafleet.batch_jobs import BATCH, NOW, at, before_now, tonight
from tests.lorafleet.jobs import a_batch, a_job

SIZES = [(80, 24), (160, 50), (60, 10), (200, 8)]


def rendered(jobs: Sequence[pb.TrainingJob], width: int, height: int, now: datetime = NOW) -> list[str]:
    out = StringIO()
    Console(file=out, width=width, height=height).print(screen(BATCH, jobs, now))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("num_jobs", [1, 16, 400])
def test_screen_fits_any_terminal(width: int, height: int, num_jobs: int) -> None:
    lines = rendered(tonight(num_jobs), width, height)
    assert len(lines) < height  # one line is the cursor's
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(("width", "height"), SIZES[:2])
def test_screen_tells_counts_progress_rates_runs_and_the_worst(width: int, height: int) -> None:
    lines = rendered(tonight(), width, height)
    assert lines[0].startswith("tenants/acme/batches/tonight  400 styles, 30:00")
    assert lines[1] == "200 succeeded, 36 running, 160 queued, 4 failed"
    assert lines[2].endswith("52%  42,276/80,000 steps")
    assert lines[3] == "400 styles/h  182.0 pictures/s  3:27 left"
    assert [line.split()[:2] for line in lines[6:8]] == [["run-0", "18"], ["run-1", "18"]]
    assert "NAN_LOSS the loss is not a number" in lines[9]
    assert len(lines) == height - 1  # the worst take what is left


def test_long_ids_and_many_runs_do_not_break_the_screen() -> None:
    jobs = tonight()
    for number, job in enumerate(jobs):
        job.name = f"tenants/acme/jobs/{'x' * 30}-{number:05d}"
        del job.attempts[:]
        job.attempts.append(pb.Attempt(run=f"run-{number:016x}"))
    lines = rendered(jobs, 80, 24)
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("29 more") for line in lines)


def test_screen_of_what_is_all_queued_knows_no_time_left_but_what_it_waits_for() -> None:
    jobs = [a_job(f"s{number}", "QUEUED", create_time=before_now(5)) for number in range(3)]
    lines = rendered(jobs, 80, 24)
    assert lines[1] == "3 queued"
    assert lines[3] == "time left unknown"
    jobs[0].message = "waits for a free run"
    assert rendered(jobs, 80, 24)[3] == "time left unknown (waits for a free run)"


def test_time_left_is_all_steps_left_at_the_rate_of_those_that_train() -> None:
    jobs = [a_job("a", "RUNNING", step=100), a_job("b", "QUEUED"), a_job("c", "FAILED", step=10)]
    jobs[0].progress.pictures_per_second = 8.0
    jobs[0].spec.training.micro_batch_size = 2
    jobs[0].spec.training.gradient_accumulation_steps = 2
    summary = summarize(jobs, NOW)
    assert (summary.steps_done, summary.steps_total) == (100 + 0 + 200, 600)
    assert summary.steps_per_second == 2.0
    assert summary.remaining_s == 150


def test_styles_per_hour_are_counted_once_there_are_any_and_estimated_before() -> None:
    jobs = [a_job("a", "RUNNING", create_time=before_now(1800)), a_job("b", "QUEUED", create_time=before_now(1800))]
    jobs[0].progress.pictures_per_second = 4.0
    early = summarize(jobs, NOW)
    assert (early.styles_per_hour, early.is_estimate) == (3600 * 4 / 200, True)
    jobs[1].state = pb.JOB_STATE_SUCCEEDED
    later = summarize(jobs, NOW)
    assert (later.styles_per_hour, later.is_estimate) == (2, False)
    assert "about 72 styles/h" in sentence(BATCH, early)


def test_clock_of_a_batch_stops_with_its_last_job() -> None:
    jobs = [a_job(str(end), "SUCCEEDED", create_time=before_now(3600), end_time=before_now(end)) for end in (1800, 600)]
    assert summarize(jobs, NOW).elapsed_s == 3000
    assert summarize(jobs, NOW).remaining_s == 0
    assert summarize([*jobs, a_job("late", "RUNNING")], NOW).elapsed_s == 3600


def test_worst_are_the_failed_then_the_highest_held_out_then_the_slowest() -> None:
    def job(id: str, state: str, held_out: float | None = None, speed: float = 0.0) -> pb.TrainingJob:
        found = a_job(id, state, step=10)
        found.progress.pictures_per_second = speed
        if held_out is not None:
            found.progress.held_out_loss_base, found.progress.held_out_loss = 0.5, held_out
        return found

    jobs = [
        job("fast", "RUNNING", speed=9),
        job("slow", "RUNNING", speed=1),
        job("queued", "QUEUED"),
        job("good", "SUCCEEDED", 0.1),
        job("cancelled", "CANCELLED", 0.9),
        job("worse", "RUNNING", 0.6),
        job("failed", "FAILED", 0.1),
    ]
    assert [job_id(found) for found in worst_first(jobs)] == ["failed", "worse", "good", "slow", "fast"]
    assert held_out_ratio(jobs[5]) == pytest.approx(1.2)


def test_packs_are_the_runs_that_train_largest_first() -> None:
    jobs = [a_job(str(number), "RUNNING" if number else "SUCCEEDED", attempts=[pb.Attempt(run="r" + "abb"[number])]) for number in range(3)]
    assert [(pack.run, len(pack.jobs)) for pack in packs_of([*jobs, a_job("x", attempts=[pb.Attempt(run="ra")])])] == [("rb", 2), ("ra", 1)]


@pytest.mark.parametrize(
    ("lines", "packs", "worst", "expected"),
    [
        (20, 2, 3, (3, 4)),
        (18, 30, 100, (9, 9)),
        (18, 30, 3, (14, 4)),
        (18, 2, 100, (3, 15)),
        (2, 9, 9, (0, 2)),
        (0, 9, 9, (0, 0)),
        (-3, 9, 9, (0, 0)),
    ],
)
def test_lines_are_shared_out_so_that_none_is_wasted(lines: int, packs: int, worst: int, expected: tuple[int, int]) -> None:
    assert shares(lines, packs, worst) == expected


# In a log.


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 31, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def test_log_gets_a_line_when_counts_change_and_at_most_one_in_ten_seconds() -> None:
    out, clock = StringIO(), Clock()
    with view_on(Console(file=out), a_batch(num_jobs=2), clock) as show:
        show(a_job("a", "QUEUED"))
        assert out.getvalue() == ""  # the snapshot is not whole yet
        show(a_job("b", "QUEUED"))
        assert out.getvalue() == "tonight  2 queued  0%  time left unknown\n"
        clock.advance(1)
        show(a_job("a", "RUNNING", step=1))
        clock.advance(8.5)
        show(a_job("a", "RUNNING", step=2))
        assert len(out.getvalue().splitlines()) == 1
        clock.advance(1)
        show(a_job("a", "RUNNING", step=3))
        assert out.getvalue().splitlines()[1:] == ["tonight  1 running, 1 queued  0%  time left unknown"]
        clock.advance(60)
        show(a_job("a", "RUNNING", step=4))  # nothing worth a line
        assert len(out.getvalue().splitlines()) == 2
        show(a_job("a", "SUCCEEDED"))
        show(a_job("b", "FAILED"))
    assert [line.split("  ")[1] for line in out.getvalue().splitlines()[2:]] == ["1 succeeded, 1 queued", "1 succeeded, 1 failed"]


def test_log_of_a_batch_that_nobody_heard_of_is_empty() -> None:
    out = StringIO()
    with view_on(Console(file=out), a_batch()):
        pass
    assert out.getvalue() == ""


def test_terminal_shows_the_screen_and_leaves_its_last_state() -> None:
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=24)
    with view_on(console, a_batch(), lambda: NOW) as show:
        show(a_job("a", "QUEUED", create_time=at(NOW)))
        show(a_job("a", "SUCCEEDED", create_time=at(NOW)))
    assert "1 succeeded" in out.getvalue()
