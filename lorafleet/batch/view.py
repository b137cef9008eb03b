"""Shows a batch while it trains: one screen for hundreds of styles on a terminal, a line now and then elsewhere. Knows no server."""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lorafleet import output, tables
from lorafleet.batch.summary import Summary, held_out_ratio, steps_of, summarize, worst_first
from lorafleet.control_characters import one_line
from lorafleet.progress_view import Show, live_on
from lorafleet.states import job_id, name_of
from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import training_service_pb2 as pb

LINE_EVERY_S = 10.0
REFRESH_PER_S = 2.0
HEAD_LINES = 5  # name, counts, bar, rates, and an empty one
PACKS = (
    tables.name("RUN"),
    tables.number("STYLES", leaves=1),
    tables.value("PHASE", leaves=3),
    tables.number("STEP", leaves=2),
    tables.number("PICTURES/S", leaves=4),
    tables.message("WHO"),
)
WORST = (
    tables.name("WORST"),
    tables.state("STATE"),
    tables.number("STEP", leaves=2),
    tables.number("HELD-OUT", leaves=1),
    tables.message("WHY"),
)

Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def view_on(console: Console, batch: batch_pb.Batch, now: Clock = _now) -> Generator[Show]:
    """A function that takes in a job of the batch as it is now; call it after every change."""
    jobs: dict[str, pb.TrainingJob] = {}

    def keep(job: pb.TrainingJob) -> None:
        jobs[job.name] = job

    if not console.is_terminal:
        lines = BatchLines(console, batch, now)
        yield lines
        lines.close()
        return
    screen_now = lambda: screen(batch.name, list(jobs.values()), now())  # noqa: E731
    with live_on(console, screen_now, REFRESH_PER_S):
        yield keep


# Elsewhere than on a terminal.


class BatchLines:
    """A line when the counts or the tenths of all steps have changed, and no more than one in ten seconds."""

    def __init__(self, console: Console, batch: batch_pb.Batch, now: Clock) -> None:
        self._console = console
        self._batch = batch
        self._now = now
        self._jobs: dict[str, pb.TrainingJob] = {}
        self._shown: tuple[object, ...] = ()
        self._shown_at: datetime | None = None

    def __call__(self, job: pb.TrainingJob) -> None:
        self._jobs[job.name] = job
        if len(self._jobs) >= self._batch.num_jobs and self._is_time():
            self._show()

    def close(self) -> None:
        """The last word, when it has not been said."""
        if self._jobs:
            self._show()

    def _is_time(self) -> bool:
        return self._shown_at is None or (self._now() - self._shown_at).total_seconds() >= LINE_EVERY_S

    def _show(self) -> None:
        summary = summarize(list(self._jobs.values()), self._now())
        mark = (*summary.counts.items(), summary.steps_done * 10 // (summary.steps_total or 1))
        if mark != self._shown:
            self._shown, self._shown_at = mark, self._now()
            self._console.print(sentence(self._batch.name, summary), soft_wrap=True)


def sentence(name: str, summary: Summary) -> str:
    """`tonight  12 succeeded, 4 running  75%  104 styles/h  53.1 pictures/s  5:10 left`."""
    parts = [_id(name), counts(summary).plain, _percent(summary), *_rates(summary)]
    return "  ".join(part for part in parts if part)


# On a terminal.


def screen(name: str, jobs: Sequence[pb.TrainingJob], now: datetime) -> RenderableType:
    """The batch on one screen: as many of its runs and of its worst styles as the terminal has lines for."""
    return _Screen(name, summarize(jobs, now), packs_of(jobs), worst_first(jobs))


@dataclass(frozen=True)
class TrainingPack:
    """The styles of one run that train now."""

    run: str
    jobs: Sequence[pb.TrainingJob]


def packs_of(jobs: Sequence[pb.TrainingJob]) -> list[TrainingPack]:
    """The runs that train, largest first."""
    runs: dict[str, list[pb.TrainingJob]] = {}
    for job in jobs:
        if job.state == pb.JOB_STATE_RUNNING:
            runs.setdefault(job.attempts[-1].run if job.attempts else "", []).append(job)
    return sorted((TrainingPack(run, members) for run, members in runs.items()), key=lambda pack: (-len(pack.jobs), pack.run))


@dataclass(frozen=True)
class _Screen:
    name: str
    summary: Summary
    packs: Sequence[TrainingPack]
    worst: Sequence[pb.TrainingJob]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _head(self.name, self.summary)
        lines_for_packs, lines_for_worst = shares(options.size.height - 1 - HEAD_LINES, len(self.packs), len(self.worst))
        if lines_for_packs:
            yield _packs_table(self.packs, lines_for_packs)
        if lines_for_worst:
            yield _worst_table(self.worst[: lines_for_worst - 1])


def shares(lines: int, num_packs: int, num_worst: int) -> tuple[int, int]:
    """Lines for the table of runs and for that of the worst styles, headings included; the first gets half when both want more."""
    packs, worst = (num_packs + 1 if num_packs else 0), (num_worst + 1 if num_worst else 0)
    packs = _table_of(min(packs, max(lines // 2, lines - worst)))
    return packs, _table_of(min(worst, lines - packs))


def _table_of(lines: int) -> int:
    """A heading alone is not a table."""
    return lines if lines > 1 else 0


def _head(name: str, summary: Summary) -> Iterator[RenderableType]:
    yield _line(Text.assemble((name, "bold"), f"  {output.number(summary.num_jobs, 'style')}, {output.clock(summary.elapsed_s)}"))
    yield _line(counts(summary))
    yield _bar(summary)
    yield _line(Text("  ").join(Text(rate) for rate in _rates(summary)))
    yield Text()


def counts(summary: Summary) -> Text:
    """`12 succeeded, 4 running`, in the states' colours."""
    parts = [Text(f"{count} {name_of(state).lower()}", style=output.COLOURS.get(state, "")) for state, count in summary.counts.items()]
    return Text(", ").join(parts)


def _bar(summary: Summary) -> RenderableType:
    line = Table.grid(expand=True, padding=(0, 1, 0, 0))
    line.add_column(ratio=1)
    line.add_column(no_wrap=True, justify="right")
    bar = ProgressBar(total=summary.steps_total or 1, completed=summary.steps_done, finished_style="green")
    line.add_row(bar, f"{_percent(summary)}  {summary.steps_done:,}/{summary.steps_total:,} steps")
    return line


def _rates(summary: Summary) -> list[str]:
    styles = f"{'about ' if summary.is_estimate else ''}{summary.styles_per_hour:.0f} styles/h" if summary.styles_per_hour else ""
    pictures = f"{summary.pictures_per_second:.1f} pictures/s" if summary.pictures_per_second else ""
    return [part for part in (styles, pictures, _left(summary)) if part]


def _left(summary: Summary) -> str:
    if summary.remaining_s is None:
        return f"time left unknown ({one_line(summary.waits_for)})" if summary.waits_for else "time left unknown"
    return f"{output.clock(summary.remaining_s)} left" if summary.remaining_s else ""


def _percent(summary: Summary) -> str:
    return f"{100 * summary.steps_done // summary.steps_total}%" if summary.steps_total else "0%"


def _packs_table(packs: Sequence[TrainingPack], lines: int) -> RenderableType:
    """A line for each run; those that do not fit are one line together."""
    shown = packs if len(packs) < lines else packs[: lines - 2]
    rows = [_pack_row(pack) for pack in shown]
    if left := packs[len(shown) :]:
        num_styles = str(sum(len(pack.jobs) for pack in left))
        rows.append((f"{len(left)} {'more' if shown else 'runs'}", num_styles, "", "", _pictures_per_second(left), ""))
    return tables.Table(PACKS, rows, heading_style="dim")


def _pack_row(pack: TrainingPack) -> tuple[str, ...]:
    phase = Counter(output.doing(job) for job in pack.jobs).most_common(1)[0][0]
    done = sorted({job.progress.step for job in pack.jobs})
    steps = f"{done[0]}-{done[-1]}" if len(done) > 1 else str(done[0])
    names = ", ".join(job_id(job) for job in pack.jobs[:20])
    return pack.run, str(len(pack.jobs)), phase, f"{steps}/{max(map(steps_of, pack.jobs))}", _pictures_per_second([pack]), names


def _pictures_per_second(packs: Sequence[TrainingPack]) -> str:
    return f"{sum(job.progress.pictures_per_second for pack in packs for job in pack.jobs):.1f}"


def _worst_table(jobs: Sequence[pb.TrainingJob]) -> RenderableType:
    rows = ((job_id(job), output.state(job), output.steps(job), _ratio(job), _why(job)) for job in jobs)
    return tables.Table(WORST, rows, heading_style="dim")


def _ratio(job: pb.TrainingJob) -> Text:
    """`+21%`: how far the held-out loss is above the base's."""
    ratio = held_out_ratio(job)
    return Text("" if ratio is None else f"{ratio - 1:+.0%}", style="red" if ratio is not None and ratio > 1 else "")


def _why(job: pb.TrainingJob) -> str:
    if job.state == pb.JOB_STATE_FAILED:
        return f"{job.reason} {job.message}"
    return f"{output.speed(job)} pictures/s" if output.speed(job) else ""


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _id(name: str) -> str:
    return name.rpartition("/")[2]
