"""Progress on a terminal and in a log."""

import sys
from io import StringIO

import pytest
from rich.console import Console

from lorafleet.progress_view import bar, remaining, sentence, view_on
from lorafleet.v1 import training_service_pb2 as pb
from tests.lorafleet.jobs import a_job


def training(step: int, state: str = "RUNNING") -> pb.TrainingJob:
    job = a_job(state=state, step=step)
    job.progress.MergeFrom(pb.Progress(loss=0.0913, pictures_per_second=53.06, remaining_s=65.4, held_out_loss_base=0.4, held_out_loss=0.1))
    return job


def test_sentence_tells_what_is_known_of_a_job() -> None:
    expected = "fox  RUNNING training  50/200  loss 0.0913  held-out 0.4000 → 0.1000 (-75%)  53.1 pictures/s  1:05 left"
    assert sentence(training(50)) == expected
    assert sentence(pb.TrainingJob(name="tenants/a/jobs/b", state=pb.JOB_STATE_QUEUED, message="waits")) == "b  QUEUED  waits"


def test_log_gets_a_line_for_each_phase_and_each_tenth_not_for_each_step() -> None:
    out = StringIO()
    with view_on(Console(file=out)) as show:
        for step in range(201):
            show(training(step))
        show(training(200, state="SUCCEEDED"))
    assert len(out.getvalue().splitlines()) == 12


@pytest.mark.parametrize("width", [60, 80, 140])
def test_terminal_of_any_width_shows_every_job(width: int) -> None:
    out = StringIO()
    with view_on(Console(file=out, force_terminal=True, width=width)) as show:
        show(training(50))
        show(pb.TrainingJob(name="tenants/a/jobs/cat", state=pb.JOB_STATE_QUEUED))
        show(training(200, state="SUCCEEDED"))
    assert "fox" in out.getvalue()
    assert "cat" in out.getvalue()


@pytest.mark.parametrize(("step", "shown"), [(0, "╌" * 24), (100, "━" * 12 + "╌" * 12), (200, "━" * 24), (999, "━" * 24), (-1, "╌" * 24)])
def test_a_bar_tells_how_much_is_done(step: int, shown: str) -> None:
    assert bar(training(step)).plain == shown
    assert bar(pb.TrainingJob()).plain == "╌" * 24


def test_what_goes_to_a_file_is_not_shown_with_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    file, terminal = StringIO(), StringIO()
    monkeypatch.setattr("sys.stdout", file)
    with view_on(Console(file=terminal, force_terminal=True)) as show:
        show(training(50))
        sys.stdout.write("for a program")
    assert file.getvalue() == "for a program"
    assert "for a program" not in terminal.getvalue()


def test_remaining_time_is_empty_when_unknown_or_over() -> None:
    assert remaining(a_job()) == ""
    assert remaining(training(200, state="FAILED")) == ""
    assert remaining(pb.TrainingJob(progress=pb.Progress(remaining_s=3725))) == "1:02:05"
