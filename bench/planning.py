"""`make bench-planning`: how long the packing planner takes for 1,000 to 10,000 jobs, and whether that grows in proportion.

Pure: no server, no store. The jobs are of 50 tenants, 8 keys, many ranks, step counts, priorities and wishes. Writes
bench/results/planning.json and planning.png; each time is the median of the rounds.
"""

import random
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace

from bench import results_file
from service.control.compatibility import Cluster, PackKey, WarmKey
from service.control.memory import GIB, Ask, BaseShapes, footprint
from service.control.packing import Candidate, PackLimits, Sharing, plan

SIZES = (1_000, 2_000, 5_000, 10_000)
ROUNDS = 5
NUM_FREE_RUNS = 4
LIMITS = PackLimits(max_pack_size=16, worker_memory_bytes=24 * GIB)
# Stable Diffusion 1.5 with a tenth of its layers: the planner counts them once for each kind of spec.
BASE = BaseShapes(
    layers={f"blocks.{index}.to_q": (640, 640) for index in range(32)},
    num_params=859_520_964,
    num_other_params=206_713_975,
    width=320,
    latent_side=64,
    pixels_per_latent=8,
)
CLUSTER = Cluster(num_workers=1, cpus_per_worker=1.0, gpus_per_worker=1.0, memory_gib_per_worker=None, zero_stage=0, offload="none")
KEY = PackKey(
    warm=WarmKey(base_uri="s3://bases/sd15", family="sd1", precision="bf16", cluster=CLUSTER),
    resolution=512,
    bucketing=True,
    accumulation_steps=1,
)
KEYS = [replace(KEY, recomputes=again, resolution=pixels) for again in (False, True) for pixels in (256, 384, 512, None)]


def main() -> int:
    seconds = {size: measure(size) for size in SIZES}
    results_file.write("planning", summary(seconds))
    draw(seconds)
    return 0


def jobs(size: int, seed: int = 0) -> list[Candidate]:
    """A queue as a busy platform has it."""
    draw = random.Random(seed)
    kinds = {rank: footprint(BASE, _ask(rank)) for rank in (4, 8, 16, 32, 64)}
    return [
        Candidate(
            uid=f"{index:05d}",
            tenant=f"tenant-{draw.randrange(50)}",
            key=draw.choice(KEYS),
            sharing=draw.choice([Sharing.ANYONE, Sharing.ANYONE, Sharing.TENANT, Sharing.NOBODY]),
            max_steps=draw.randrange(100, 3000),
            footprint=kinds[draw.choice(list(kinds))],
            priority=draw.choice([0, 0, 0, 10, -10]),
            order=index,
        )
        for index in range(size)
    ]


def measure(size: int) -> float:
    """Median seconds to plan so many jobs."""
    queue = jobs(size)
    taken: list[float] = []
    for _ in range(ROUNDS):
        started_s = time.perf_counter()
        plan(queue, LIMITS, NUM_FREE_RUNS)
        taken.append(time.perf_counter() - started_s)
    print(f"{size:6d} jobs: {statistics.median(taken):.3f} s", flush=True)
    return statistics.median(taken)


def summary(seconds: Mapping[int, float]) -> dict[str, float]:
    """The times, and how much more one of the most jobs takes than one of the fewest: 1 is in proportion, 10 is quadratic."""
    fewest, most = min(seconds), max(seconds)
    return {
        **{f"plan_{size}_seconds": taken for size, taken in seconds.items()},
        "per_job_growth": (seconds[most] / most) / (seconds[fewest] / fewest),
        "rounds": ROUNDS,
    }


def draw(seconds: Mapping[int, float]) -> None:
    """bench/results/planning.png: the times beside a straight line through the first."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    sizes = sorted(seconds)
    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.plot(sizes, [seconds[size] for size in sizes], marker="o", label="planned")
    axes.plot(sizes, [seconds[sizes[0]] * size / sizes[0] for size in sizes], linestyle="--", label="in proportion to 1,000 jobs")
    axes.set(xlabel="queued jobs", ylabel="seconds", title="Planning packs", xlim=(0, None), ylim=(0, None))
    axes.legend()
    figure.tight_layout()
    figure.savefig(results_file.RESULTS / "planning.png", dpi=120)


def _ask(rank: int) -> Ask:
    return Ask(
        family="sd1", precision="bf16", method="lora", rank=rank, target_modules=("to_q",), resolution=512, micro_batch_size=1, bank=rank
    )


if __name__ == "__main__":
    raise SystemExit(main())
