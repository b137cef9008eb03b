"""Jobs while they train: bars on a terminal, a line now and then elsewhere. Knows no server."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from lorafleet import output
from lorafleet.states import has_ended, job_id, label
from lorafleet.terminal import spinner_of
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.visible import one_line

WIDE = 110  # columns of a terminal that every column of the bars fits into

Show = Callable[[pb.TrainingJob], None]


@contextmanager
def view_on(console: Console) -> Generator[Show]:
    """A function that shows a job as it is now; call it after every change."""
    if not console.is_terminal:
        yield Lines(console)
        return
    with bars_on(console) as bars:
        yield Bars(bars)


class Lines:
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


class Bars:
    """A bar for each job."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._rows: dict[str, TaskID] = {}

    def __call__(self, job: pb.TrainingJob) -> None:
        if job.name not in self._rows:
            self._rows[job.name] = self._bars.add_task(job_id(job), total=None, job=job)
        total = job.progress.max_steps or None
        if has_ended(job):
            total = total or 1  # a job that never started: an empty bar, not a moving one
        self._bars.update(self._rows[job.name], completed=job.progress.step, total=total, job=job)
        if has_ended(job):
            self._bars.stop_task(self._rows[job.name])


def bars_on(console: Console) -> Progress:
    """The columns that fit: a narrow terminal shows fewer, rather than each of them cut short."""
    wide = [
        _JobColumn(lambda job: _labelled("held-out ", output.held_out(job))),
        _JobColumn(lambda job: Text(f"{output.speed(job)}/s" if output.speed(job) else "")),
    ]
    return Progress(
        _Spinner(spinner_of(console)),
        _JobColumn(lambda job: Text(job_id(job), style="bold")),
        _JobColumn(lambda job: Text(_phase_or_state(job), style=output.state(job).style)),
        BarColumn(bar_width=None, finished_style="green"),
        _JobColumn(lambda job: Text(output.steps(job))),
        _JobColumn(lambda job: _labelled("loss ", output.loss(job))),
        *(wide if console.width >= WIDE else ()),
        _JobColumn(lambda job: Text(remaining(job), style="cyan")),
        console=console,
        expand=True,
    )


def _phase_or_state(job: pb.TrainingJob) -> str:
    return output.doing(job) if job.state == pb.JOB_STATE_RUNNING and job.progress.phase else doing(job)


class _Spinner(SpinnerColumn):
    """Turns while the job goes on: one that failed half-way has ended, too."""

    def render(self, task: Task) -> RenderableType:
        return Text(" ") if has_ended(task.fields["job"]) else super().render(task)


class _JobColumn(TextColumn):
    """A column that a function of the job fills."""

    def __init__(self, cell: Callable[[pb.TrainingJob], Text]) -> None:
        super().__init__("")
        self._cell = cell

    def render(self, task: Task) -> Text:
        return self._cell(task.fields["job"])


def _labelled(name: str, value: str) -> Text:
    return Text.assemble((name, "dim"), value) if value else Text()
