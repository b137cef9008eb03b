"""`make bench-admission`: a made load of 100,000 jobs through admission and through plain first come, first served.

Pure: no server, one core. Writes bench/results/admission.json and admission.png. The load is the same for both, 512 GPUs asked
for to 90 %, and so are the jobs' durations: the figures differ by what is decided alone.
"""

import math
import time

from bench import results_file
from service.control.capacity import Resources
from service.simulate import trace
from service.simulate.command import draw, policy
from service.simulate.engine import Decide, World, by_admission, by_fifo, simulate
from service.simulate.report import Report, summed_up

NUM_JOBS = 100_000
SEED = 1
GPUS = 512
LOAD = 0.9
WORLD = World(capacity=Resources(GPUS, math.inf, math.inf))


def main() -> int:
    jobs = trace.made(NUM_JOBS, SEED, GPUS, load=LOAD)
    deciders = {"admission": by_admission(policy()), "fifo": by_fifo}
    reports: dict[str, Report] = {}
    metrics: dict[str, float] = {"num_jobs": NUM_JOBS, "gpus": GPUS, "load": LOAD, "seed": SEED}
    for name, decide in deciders.items():
        reports[name], metrics[f"{name}_seconds"] = timed(jobs, decide)
        metrics |= {f"{name}_{key}": value for key, value in figures(reports[name]).items()}
    metrics["wait_p50_fifo_over_admission"] = metrics["fifo_wait_p50_s"] / max(1.0, metrics["admission_wait_p50_s"])
    results_file.write("admission", metrics)
    draw(reports, results_file.RESULTS / "admission.png")
    return 0


def timed(jobs: list[trace.TraceJob], decide: Decide) -> tuple[Report, float]:
    """The report, and the seconds that the simulation took."""
    began_s = time.perf_counter()
    report = summed_up(simulate(jobs, WORLD, decide))
    return report, time.perf_counter() - began_s


def figures(report: Report) -> dict[str, float]:
    """What is kept of a report: waits of all and of each class, and the whole cluster's numbers."""
    waits = {"wait": report.all, **{f"wait_{name}": waits for name, waits in report.by_class.items()}}
    found = {f"{name}_{what}": getattr(of, what) for name, of in waits.items() for what in ("mean_s", "p50_s", "p90_s", "p99_s", "max_s")}
    return {
        **found,
        "utilisation": report.utilisation,
        "fairness": report.fairness,
        "num_preemptions": report.num_preemptions,
        "num_never_started": report.num_never_started,
        "num_rounds": report.num_rounds,
        "most_waiting": report.most_waiting,
    }


if __name__ == "__main__":
    raise SystemExit(main())
