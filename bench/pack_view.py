"""Shows what bench.pack has found: a table against its goals, curves in pack.png, and figures kept from earlier runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from bench import results_file


@dataclass(frozen=True)
class Goal:
    """What a figure must be."""

    metric: str
    bound: Literal["at least", "at most"]
    value: float
    meaning: str

    def met(self, found: float) -> bool:
        return found >= self.value if self.bound == "at least" else found <= self.value


GOALS = (
    Goal("styles_per_hour_over_peer", "at least", 3.0, "styles per hour: 16 at once over the script 16 times in a row"),
    Goal("pack16_b1_over_lone", "at least", 2.3, "in-loop pictures/s: pack of 16 over lone jobs, micro-batch 1"),
    Goal("memory_pack16_b1_over_lone_b16", "at most", 1.15, "peak memory: pack of 16 at micro-batch 1 over a lone job at 16"),
    Goal("pack_vs_alone_max_relative_loss_diff", "at most", 1e-5, "loss of any step, alone and in a pack of 16, float32"),
    Goal("pack_vs_alone_min_cosine_similarity", "at least", 0.99999, "adapters, alone and in a pack of 16"),
    Goal("warm_first_step_over_cold", "at most", 0.25, "submit to first step: second pack over the cold first"),
    Goal("warm_single_wall_over_peer", "at most", 0.8, "wall time: a lone warm job of batch 8 over the script"),
)


def laid_over_earlier(metrics: Mapping[str, float], file: Path) -> dict[str, float]:
    """The figures with those of earlier runs on the same machine that they do not replace: parts are run one by one."""
    earlier: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    here = results_file.machine()
    if any(earlier.get(name) != here[name] for name in ("machine", "num_cpus")):
        return dict(metrics)
    return {**{name: value for name, value in earlier.items() if name not in here}, **metrics}


def show(metrics: Mapping[str, float]) -> None:
    Console(width=120).print(table(metrics))


def table(metrics: Mapping[str, float]) -> Table:
    """Each goal with what was found of it."""
    shown = Table("metric", "found", "goal", "", "what it is")
    for goal in GOALS:
        found = metrics.get(goal.metric)
        verdict = "not measured" if found is None else "met" if goal.met(found) else "MISSED"
        shown.add_row(goal.metric, "" if found is None else f"{found:.6g}", f"{goal.bound} {goal.value:g}", verdict, goal.meaning)
    return shown


def series(metrics: Mapping[str, float], name: str) -> dict[int, float]:
    """The points of one curve, by size of the pack."""
    start = f"curve_{name}_k"
    return dict(sorted((int(key.removeprefix(start)), value) for key, value in metrics.items() if key.startswith(start)))


def relative(points: Mapping[int, float]) -> dict[int, float]:
    """The points over the first one, that of a pack of 1."""
    return {size: value / points[1] for size, value in points.items()}


def draw(metrics: Mapping[str, float], file: Path) -> None:
    """Two panels: speed by size of the pack, and what a style costs by it. Draws nothing before the curve is measured."""
    rates = series(metrics, "pictures_per_second")
    if 1 not in rates:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    left.plot(list(rates), list(rates.values()), marker="o", color="#1c4ea8")
    left.set(title="Training speed", xlabel="styles in the pack", ylabel="pictures/s in the loop, all styles")
    left.set_ylim(bottom=0)
    costs = {
        "a step, in the loop": relative(series(metrics, "seconds_per_style_and_step")),
        "submit to artifact, start-up included": relative(series(metrics, "wall_seconds_per_style")),
    }
    for (label, points), colour in zip(costs.items(), ("#1c4ea8", "#c82030"), strict=True):
        right.plot(list(points), list(points.values()), marker="o", label=label, color=colour)
    right.set(title="Seconds a style costs", xlabel="styles in the pack", ylabel="over a pack of 1")
    right.set_ylim(bottom=0)
    right.legend()
    for panel in (left, right):
        panel.set_xscale("log", base=2)
        panel.set_xticks(list(rates), [str(size) for size in rates])
        panel.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
