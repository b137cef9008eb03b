"""`make bench-single PEER=…`: one style through lorafleet against diffusers' example script, alternating in one run.

Same base, pictures, batch, rank, target modules, rate and steps; both in fp32, neither draws pictures. lorafleet starts
cold: Ray is up, but no worker is, and its cache of latents is empty. The loops alone are compared at batch 1, too, and on a small SDXL with
the script for SDXL, which lies beside the other. Then the same on a server with workers that stand by, up to the first step; and,
without Ray, the loop beside a bare eager one (bench.bare). Parts run alone (`--parts cold,batch1,sdxl,standby,bare`). Writes
bench/results/single.json; each ratio is the median over the rounds.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import pack_view, peer, results_file
from bench.peer import PeerResult, PeerRun
from bench.standby import Standby
from examples.demo import BASE_MODEL, PICTURES, STYLE
from examples.processes import Servers
from examples.restyle import restyle
from examples.serving import serve, wait_for_ray
from lorafleet import spec
from lorafleet.client import Client
from lorafleet.v1 import training_service_pb2 as pb

RANK, LEARNING_RATE, SEED = 16, 1e-3, 0
SHAPE_STEPS = 10
PARTS = ("cold", "batch1", "sdxl", "standby", "bare")


@dataclass(frozen=True, kw_only=True)
class Case:
    """What both train, and by which script theirs."""

    script: Path
    base_dir: Path = BASE_MODEL
    batch_size: int = 8
    num_steps: int


IN_LOOP = ("in_loop_over_peer", "pictures_per_second", "peer_pictures_per_second")  # of the cases beside the first


@dataclass(frozen=True, kw_only=True)
class OurResult:
    pictures_per_second: float  # in the loop; the window of its last 50 steps
    wall_seconds: float  # from submit to the committed artifact
    first_step_seconds: float  # from submit
    phase_seconds: Mapping[str, float]  # as a watcher saw them; "submitted" lasts until the driver speaks


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="lorafleet-bench-") as name, Servers(log_dir=Path(name)) as servers:
        folder = Path(name)
        restyle(STYLE, PICTURES, folder / "data")
        found: dict[str, float] = {}
        if {"cold", "batch1", "sdxl"} & set(options.parts):
            fleet = Fleet(folder, servers, "--standby-workers", "0")
            for name, case in cases(options.peer, options.steps).items():
                if name in options.parts:
                    figures = summary(rounds(fleet, folder / name, case, options.rounds))
                    found |= figures if name == "cold" else {f"{each}_{name}": figures[each] for each in IN_LOOP}
    if "standby" in options.parts:
        found |= standby(options)
    if "bare" in options.parts:
        found |= bare()
    results_file.write("single", pack_view.laid_over_earlier(found, results_file.RESULTS / "single.json"))
    return 0


def cases(script: Path, num_steps: int) -> dict[str, Case]:
    """By the names of their parts. A step at batch 1 is short: there are more of them."""
    for_sdxl = script.with_name(f"{script.stem}_sdxl.py")
    return {
        "cold": Case(script=script, num_steps=num_steps),
        "batch1": Case(script=script, batch_size=1, num_steps=4 * num_steps),
        "sdxl": Case(script=for_sdxl, base_dir=BASE_MODEL.with_name("emoji-sdxl"), num_steps=num_steps),
    }


def rounds(fleet: "Fleet", folder: Path, case: Case, num_rounds: int) -> list[tuple[OurResult, PeerResult]]:
    """Of the script and of a run that starts its workers."""
    found: list[tuple[OurResult, PeerResult]] = []
    for number in range(num_rounds):
        theirs = peer.measure(_peer_run(case, fleet.data_dir, folder / f"peer-{number}"))
        ours = fleet.measure(f"{folder.name}-{number + 1}", case)
        print(f"{folder.name} {number + 1}: ours {ours}\n         peer {theirs}", flush=True)
        found.append((ours, theirs))
    return found


def bare() -> dict[str, float]:
    """In a process of its own: DeepSpeed chooses its accelerator once."""
    ran = subprocess.run([sys.executable, "-m", "bench.bare"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def standby(options: argparse.Namespace) -> dict[str, float]:
    """Rounds of the script and of a first job that finds workers standing by. One job before tells them the shape."""
    with tempfile.TemporaryDirectory(prefix="lorafleet-bench-") as name, Servers(log_dir=Path(name)) as servers:
        folder = Path(name)
        restyle(STYLE, PICTURES, folder / "data")
        fleet, workers = Fleet(folder, servers, "--standby-workers", "1"), Standby(folder)
        case = Case(script=options.peer, num_steps=options.steps)
        fleet.measure("shape", replace(case, num_steps=SHAPE_STEPS))
        firsts: list[tuple[float, float]] = []
        held_mib: list[float] = []
        for number in range(options.rounds):
            theirs = peer.measure(_peer_run(case, fleet.data_dir, folder / f"peer-{number}"))
            workers.wait()
            held_mib.append(workers.memory_mib())
            firsts.append((fleet.measure(str(number + 1), case).first_step_seconds, theirs.start_up_seconds))
            print(f"round {number + 1}: first step after {firsts[-1][0]:.1f} s, the script's after {firsts[-1][1]:.1f} s", flush=True)
    return standby_summary(firsts, held_mib)


def standby_summary(firsts: Sequence[tuple[float, float]], held_mib: Sequence[float]) -> dict[str, float]:
    """`firsts`: seconds to our first step and to the script's, by rounds."""
    return {
        "first_step_standby_over_peer_start_up": statistics.median(ours / theirs for ours, theirs in firsts),
        "seconds_submit_to_first_step_standby": statistics.median(ours for ours, _ in firsts),
        "standby_peer_start_up_seconds": statistics.median(theirs for _, theirs in firsts),
        "standby_memory_mib": statistics.median(held_mib),
    }


def summary(rounds: Sequence[tuple[OurResult, PeerResult]]) -> dict[str, float]:
    """The medians over the rounds. Ratios are taken within a round, so that a machine that changes its speed cancels out."""
    median = statistics.median
    return {
        "in_loop_over_peer": median(ours.pictures_per_second / theirs.pictures_per_second for ours, theirs in rounds),
        "wall_over_peer": median(ours.wall_seconds / theirs.wall_seconds for ours, theirs in rounds),
        "seconds_submit_to_first_step": median(ours.first_step_seconds for ours, _ in rounds),
        "pictures_per_second": median(ours.pictures_per_second for ours, _ in rounds),
        "wall_seconds": median(ours.wall_seconds for ours, _ in rounds),
        "peer_pictures_per_second": median(theirs.pictures_per_second for _, theirs in rounds),
        "peer_wall_seconds": median(theirs.wall_seconds for _, theirs in rounds),
        "peer_start_up_seconds": median(theirs.start_up_seconds for _, theirs in rounds),
        "rounds": len(rounds),
        **{
            f"phase_{phase.replace('-', '_')}_seconds": median(ours.phase_seconds.get(phase, 0.0) for ours, _ in rounds)
            for phase in rounds[0][0].phase_seconds
        },
    }


class Fleet:
    """A control plane with its local Ray up; every measurement is a fresh run with an empty cache."""

    def __init__(self, folder: Path, servers: Servers, *more: str) -> None:
        self._folder = folder
        self.data_dir = folder / "data"
        self._address = serve(servers, folder, "--cache", f"file://{folder}/cache", "--warm-idle-s", "0", *more)
        wait_for_ray(folder)
        time.sleep(15)  # its dashboard and its prestarted workers still come up when its port already answers

    def measure(self, name: str, case: Case) -> OurResult:
        shutil.rmtree(self._folder / "cache", ignore_errors=True)
        with Client(self._address) as client:
            started_s = time.monotonic()
            name = client.create(self._spec(case), job_id=f"bench-{name}").name
            job, rate = client.get(name), 0.0
            phases, seen_s = defaultdict[str, float](float), started_s
            phase = "submitted"
            for job in client.watch(name):
                now_s = time.monotonic()
                phases[phase] += now_s - seen_s
                phase, seen_s = job.progress.phase or phase, now_s
                rate = job.progress.pictures_per_second or rate
            wall_seconds = time.monotonic() - started_s
        if job.state != pb.JOB_STATE_SUCCEEDED:
            raise RuntimeError(f"{job.name} ended otherwise: {job.reason} {job.message}")
        first_step_s = (job.first_step_time.ToDatetime() - job.create_time.ToDatetime()).total_seconds()
        return OurResult(pictures_per_second=rate, wall_seconds=wall_seconds, first_step_seconds=first_step_s, phase_seconds=phases)

    def _spec(self, case: Case) -> spec.Spec:
        return spec.parse(
            {
                "base_model": {"uri": f"file://{case.base_dir}"},
                "dataset": {"uri": f"file://{self.data_dir}", "validation_fraction": 0.0},
                "adapter": {"rank": RANK},
                "training": {
                    "max_steps": case.num_steps,
                    "micro_batch_size": case.batch_size,
                    "learning_rate": LEARNING_RATE,
                    "lr_scheduler": "constant",
                    "seed": SEED,
                },
                "cluster": {"cpus_per_worker": 2.0},
                "checkpointing": {"every_steps": case.num_steps},
            }
        )


def _peer_run(case: Case, data_dir: Path, out_dir: Path) -> PeerRun:
    return PeerRun(
        script=case.script,
        base_dir=case.base_dir,
        data_dir=data_dir,
        out_dir=out_dir,
        num_steps=case.num_steps,
        batch_size=case.batch_size,
        rank=RANK,
        learning_rate=LEARNING_RATE,
        seed=SEED,
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure one style against diffusers' example script.")
    parser.add_argument("peer", type=Path, help="path of train_text_to_image_lora.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS), help=f"{', '.join(PARTS)}; unset: all")
    parser.add_argument("--steps", type=int, default=60)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
