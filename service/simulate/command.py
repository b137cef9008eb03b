"""Simulates a load in a world and shows what came of it, as a table, JSON or a picture: the command `lorafleet simulate`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lorafleet.commands import Format
from lorafleet.errors import InvalidInput
from service.control.admission import AdmissionPolicy
from service.control.capacity import Resources
from service.control.quotas import Quota
from service.simulate import trace
from service.simulate.engine import World, by_admission, by_fifo, simulate
from service.simulate.report import Report, Waits, summed_up

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from lorafleet.tables import Table

SOME = 3  # tenants that a message names
LOOK_AHEAD = 200  # waiting jobs that a round looks at


def command(
    trace_file: Annotated[
        Path | None, typer.Argument(metavar="TRACE", help="CSV or JSONL with submit_s, tenant, gpus, duration_s; more columns: docs.")
    ] = None,
    make: Annotated[int | None, typer.Option("--make", min=1, help="Generate a load of this many jobs instead.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the generated load.")] = 1,
    load: Annotated[float, typer.Option("--load", min=0.01, help="Offered load of the generated jobs, as a fraction of the GPUs.")] = 0.9,
    gpus: Annotated[float, typer.Option("--capacity-gpus", min=0, help="Total GPUs.")] = 512,
    cpus: Annotated[float | None, typer.Option("--capacity-cpus", min=0, help="Total CPUs; unset: not counted.")] = None,
    runs: Annotated[int | None, typer.Option("--max-running-runs", min=1, help="Maximum active runs; unset: unlimited.")] = None,
    weight: Annotated[
        list[str] | None, typer.Option("--weight", metavar="TENANT=WEIGHT", help="Weight of its fair share; repeatable.")
    ] = None,
    max_gpus: Annotated[list[str] | None, typer.Option("--max-gpus", metavar="TENANT=GPUS", help="Its quota of GPUs; repeatable.")] = None,
    preemption: Annotated[bool, typer.Option("--preemption/--no-preemption", help="Let higher classes preempt lower ones.")] = True,
    fifo: Annotated[bool, typer.Option("--fifo", help="Also simulate first come, first served.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw waiting times to this PNG (needs matplotlib).")] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="Output format.")] = Format.TABLE,
) -> None:
    """Run admission on a recorded or generated load, and report waiting times, fairness and utilisation."""
    jobs = _jobs(trace_file, make, seed, gpus, load)
    quotas = _quotas(weight or [], max_gpus or [], {job.tenant for job in jobs})
    capacity = Resources(gpus, math.inf if cpus is None else cpus, math.inf if runs is None else runs)
    world = World(capacity=capacity, quotas=quotas)
    deciders = {"admission": by_admission(policy(preemption=preemption))}
    if fifo:
        deciders["fifo"] = by_fifo
    reports = {name: summed_up(simulate(jobs, world, decide)) for name, decide in deciders.items()}
    _print(reports, output)
    if plot is not None:
        draw(reports, plot)


def policy(*, preemption: bool = True) -> AdmissionPolicy:
    """The service's, but for how far a round looks: queue positions do not matter here."""
    return AdmissionPolicy(look_ahead=LOOK_AHEAD) if preemption else AdmissionPolicy(look_ahead=LOOK_AHEAD, preempts_from=None)


def draw(reports: dict[str, Report], path: Path) -> None:
    """Waiting times of classes, one bar for each way to decide. Raises InvalidInput without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise InvalidInput("--plot: matplotlib is not installed; pip install matplotlib", reason="MATPLOTLIB_MISSING") from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = cast(Any, pyplot).subplots(figsize=(7, 4))  # its types are partial
    kinds = [(name, of) for name, report in reports.items() for of in ("all", *report.by_class)]
    labels = [f"{name}\n{of}" for name, of in kinds]
    for offset, (percent, field) in enumerate((("p50", "p50_s"), ("p90", "p90_s"), ("p99", "p99_s"))):
        values = [getattr(_of(reports[name], of), field) / 60 for name, of in kinds]
        axes.bar([place + 0.27 * (offset - 1) for place in range(len(kinds))], values, width=0.25, label=percent)
    axes.set_xticks(range(len(kinds)), labels, fontsize=8)
    axes.set(ylabel="minutes from submission to start", title="Waiting times")
    axes.set_yscale("symlog", linthresh=1)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _jobs(path: Path | None, make: int | None, seed: int, gpus: float, load: float) -> list[trace.TraceJob]:
    if path is not None and make is None:
        return trace.read(path)
    if path is not None or make is None:
        raise InvalidInput("give either a TRACE or --make NUMBER")
    if gpus <= 0:
        raise InvalidInput("--capacity-gpus: a load is made for a number of GPUs over 0")
    return trace.made(make, seed, gpus, load=load)


def _quotas(weights: list[str], max_gpus: list[str], tenants: "Collection[str]") -> dict[str, Quota]:
    """`tenants`: of the load; a quota of another would change nothing, and so is a mistake."""
    weight_of, limit_of = _by_tenant(weights, "--weight"), _by_tenant(max_gpus, "--max-gpus")
    for option, given in (("--weight", weight_of), ("--max-gpus", limit_of)):
        if strange := sorted(given.keys() - tenants):
            some = ", ".join(sorted(tenants)[:SOME])
            raise InvalidInput(f"{option}: the load has no jobs of {strange[0]!r}; it has some of {some}{', ...' * (len(tenants) > SOME)}")
    return {tenant: Quota(weight=weight_of.get(tenant, 1.0), max_gpus=limit_of.get(tenant)) for tenant in sorted({*weight_of, *limit_of})}


def _by_tenant(given: list[str], option: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in given:
        tenant, _, value = one.partition("=")
        try:
            found[tenant] = float(value)
        except ValueError:
            raise InvalidInput(f"{option}: {one!r} is not TENANT=NUMBER") from None
        if not tenant or found[tenant] < 0 or (option == "--weight" and found[tenant] == 0):
            raise InvalidInput(f"{option}: {one!r} is not TENANT=NUMBER, with a number over 0")
    return found


def _of(report: Report, name: str) -> Waits:
    return report.all if name == "all" else report.by_class[name]


def _print(reports: dict[str, Report], output: Format) -> None:
    from lorafleet.commands.printing import print_plain
    from lorafleet.terminal import say, stdout_console

    print_plain({name: report.plain() for name, report in reports.items()}, output)
    if output is not Format.TABLE:
        return
    say("Minutes from submission to start")
    stdout_console().print(table_of(reports))
    say("")
    stdout_console().print(totals_of(reports))


def table_of(reports: dict[str, Report]) -> "Table":
    from lorafleet import tables

    numbers = [
        tables.number(heading, leaves=leaves) for heading, leaves in (("JOBS", 1), ("P50", 4), ("P90", 3), ("P99", 2), ("LONGEST", 5))
    ]
    rows = (
        (name, of, f"{waits.num_jobs:,}", *(f"{s / 60:,.1f}" for s in (waits.p50_s, waits.p90_s, waits.p99_s, waits.max_s)))
        for name, report in reports.items()
        for of, waits in _groups(report)
    )
    return tables.Table([tables.name("DECIDED BY"), tables.name("OF"), *numbers], rows)


def _groups(report: Report) -> "Iterator[tuple[str, Waits]]":
    """A tenant may be called like a class."""
    yield "all", report.all
    yield from ((f"class {name}", waits) for name, waits in report.by_class.items())
    yield from ((f"tenant {name}", waits) for name, waits in report.by_tenant.items())


def totals_of(reports: dict[str, Report]) -> "Table":
    from lorafleet import tables

    headings = ("GPUS AT WORK", "FAIRNESS", "PREEMPTIONS", "MOST WAITING", "NEVER STARTED")
    rows = (
        (
            name,
            f"{report.utilisation:.1%}",
            f"{report.fairness:.3f}",
            *(f"{number:,}" for number in (report.num_preemptions, report.most_waiting, report.num_never_started)),
        )
        for name, report in reports.items()
    )
    return tables.Table(
        [tables.name("DECIDED BY"), *(tables.number(heading, leaves=leaves) for leaves, heading in enumerate(headings, 1))], rows
    )
