"""Shows jobs while they train: bars on a terminal, a line now and then elsewhere. Knows no server."""

import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from lorafleet import output, tables
from lorafleet.control_characters import one_line
from lorafleet.states import has_ended, job_id, label
from lorafleet.v1 import training_service_pb2 as pb

REFRESH_PER_S = 4.0
BAR_WIDTH = 24
BARS = (
    tables.name("JOB"),
    tables.state("STATE"),
    tables.value("PHASE", leaves=4),
    tables.value("BAR", leaves=7),
    tables.number("STEP", leaves=1),
    tables.number("LOSS", leaves=3),
    tables.number("HELD-OUT", leaves=5),
    tables.number("PICTURES/S", leaves=6),
    tables.number("LEFT", leaves=2),
)

Show = Callable[[pb.TrainingJob], None]


@contextmanager
def view_on(console: Console) -> Generator[Show]:
    """A function that shows a job as it is now; call it after every change."""
    if not console.is_terminal:
        yield JobLines(console)
        return
    jobs: dict[str, pb.TrainingJob] = {}

    def keep(job: pb.TrainingJob) -> None:
        jobs[job.name] = job

    with live_on(console, lambda: bars_of(jobs.values()), REFRESH_PER_S):
        yield keep


def live_on(console: Console, render: Callable[[], RenderableType], refresh_per_s: float) -> Live:
    """What `render` gives, again and again. What goes to stdout meanwhile stays above it, or in the file that stdout is."""
    is_shared = sys.stdout.isatty()
    return Live(get_renderable=render, console=console, refresh_per_second=refresh_per_s, redirect_stdout=is_shared)


class JobLines:
    """A line when the phase or state changes, and at every tenth of the steps: a log should not hold a line per step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, tuple[object, ...]] = {}

    def __call__(self, job: pb.TrainingJob) -> None:
        mark = (job.state, job.reason, job.progress.phase, _tenths(job), len(job.attempts))
        if self._shown.get(job.name) != mark:
            self._shown[job.name] = mark
            self._console.print(sentence(job), soft_wrap=True)


def sentence(job: pb.TrainingJob) -> str:
    """`fox  RUNNING training  120/200  loss 0.0913  held-out 0.33 → 0.09 (-74%)  53.1 pictures/s  0:02 left`."""
    known = [
        (output.steps(job), "{}"),
        (output.loss(job), "loss {}"),
        (output.held_out(job), "held-out {}"),
        (output.speed(job), "{} pictures/s"),
        (remaining(job), "{} left"),
        (one_line(job.message), "{}"),
    ]
    return "  ".join([job_id(job), doing(job), *(form.format(value) for value, form in known if value)])


def doing(job: pb.TrainingJob) -> str:
    """State, and the phase or the place in the queue while there is one."""
    known = output.doing(job)
    return label(job) if has_ended(job) or not known else f"{label(job)} {known}"


def remaining(job: pb.TrainingJob) -> str:
    """`1:05`; empty when unknown or over."""
    return "" if round(job.progress.remaining_s) <= 0 or has_ended(job) else output.clock(job.progress.remaining_s)


def _tenths(job: pb.TrainingJob) -> int:
    return job.progress.step * 10 // job.progress.max_steps if job.progress.max_steps else 0


def bars_of(jobs: Iterable[pb.TrainingJob]) -> tables.Table:
    """A line with a bar for each job; a narrow terminal shows fewer columns, rather than each of them cut short."""
    return tables.Table(BARS, [_bar_row(job) for job in jobs], heading_style=None)


def _bar_row(job: pb.TrainingJob) -> Sequence[tables.Cell]:
    loss, speed = output.loss(job), output.speed(job)
    phase = "" if has_ended(job) else output.doing(job)
    numbers = (output.steps(job), f"loss {loss}" if loss else "", output.held_out(job), f"{speed}/s" if speed else "", remaining(job))
    return Text(job_id(job), style="bold"), output.state(job), phase, bar(job), *numbers


def bar(job: pb.TrainingJob) -> Text:
    """How much is done, in letters that are told apart without colours."""
    done = BAR_WIDTH * job.progress.step // job.progress.max_steps if job.progress.max_steps else 0
    done = min(BAR_WIDTH, max(0, done))
    return Text.assemble(("━" * done, output.COLOURS.get(job.state, "cyan")), ("╌" * (BAR_WIDTH - done), "dim"))
