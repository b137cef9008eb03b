"""`make bench-pack PEER=…`: what packs save. Against diffusers' example script, against lone jobs, and as packs grow.

Each part can run alone (`--parts speed,curve`); what it finds is laid over bench/results/pack.json, and pack.png is drawn
anew. Every ratio is of figures taken in one run, one after the other by turns.

    speed   16 styles, cold, from submit to the last artifact, against the script 16 times in a row
    lone    in-loop pictures/s of a pack of 16 against a lone job's, both at micro-batch 1
    step    the same without Ray: a step of a pack of 16 at micro-batch 1 by turns with one of one style at micro-batch 16
    memory  peak memory of the worker of a pack of 16 at micro-batch 1 against a lone job's at micro-batch 16
    curve   packs of 1, 2, 4, 8, 16, 32
    equal   losses and adapters of styles alone against the same styles in a pack of 16
    standby 16 styles on an idle server with workers that stand by, against the script as in speed
    warm    first step of a second pack on a warm worker against the cold first's; a lone warm job against the script
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from bench import pack_equal, pack_view, peer, results_file
from bench.fleet import LEARNING_RATE, RANK, SEED, Fleet, fleet, workplace
from bench.peer import PeerRun
from bench.standby import Standby
from examples.demo import BASE_MODEL

NUM_STYLES = 16
CURVE = (1, 2, 4, 8, 16, 32)
LARGEST_PACK = max(CURVE)
EQUAL_STEPS = 50
SINGLE_BATCH_SIZE = 8
WARM_IDLE_S = 600  # longer than the peer trains: the workers must still be warm after it

Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says."""

    peer: Path | None
    parts: Sequence[str]
    num_steps: int
    batch_size: int
    peer_runs: int
    rounds: int
    num_alone: int
    keep: Path | None


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    metrics = Metrics()
    with workplace(options.keep) as folder:
        try:
            for found in _measured(folder, options):
                metrics |= found
        finally:  # what the other parts have found took minutes
            _keep(metrics)
    return 0


def _measured(folder: Path, options: Options) -> Iterator[Metrics]:
    """What each part has found, as soon as it has."""
    for server in SERVERS:
        parts = [part for part in server.parts if part in options.parts]
        if not parts:
            continue
        with server.start(folder / server.name) as ours:
            for part in parts:
                print(f"== {part}", flush=True)
                yield PARTS[part](ours, folder, options)


def _keep(metrics: Metrics) -> None:
    if metrics:
        metrics = pack_view.laid_over_earlier(metrics, results_file.RESULTS / "pack.json")
        results_file.write("pack", metrics)
        pack_view.draw(metrics, results_file.RESULTS / "pack.png")
        pack_view.show(metrics)


# The parts.


def speed(ours: Fleet, folder: Path, options: Options) -> Metrics:
    """Styles per hour. The script's wall time is that of a few runs, times 16 over their number."""
    data_sets = ours.data_sets(NUM_STYLES)
    our_walls: list[float] = []
    peer_walls: list[float] = []
    for who in turns(options.peer_runs, options.rounds):
        if who == "peer":
            number = len(peer_walls)
            run = _peer_run(options, data_sets[number % NUM_STYLES], folder / f"peer-speed-{number}", options.batch_size)
            peer_walls.append(peer.measure(run).wall_seconds)
        else:
            trained = ours.train(data_sets, num_steps=options.num_steps, batch_size=options.batch_size)
            our_walls.append(trained.wall_seconds)
        print(f"{who}: {(peer_walls if who == 'peer' else our_walls)[-1]:.1f} s", flush=True)
    print(f"the script ran {len(peer_walls)} times; 16 in a row are taken as 16/{len(peer_walls)} of that", flush=True)
    return speed_summary(our_walls, peer_walls, options.batch_size)


def standby(ours: Fleet, folder: Path, options: Options) -> Metrics:
    """Styles per hour, as in `speed`; the workers end with each batch and others come up. One style before tells them the shape."""
    data_sets, workers = ours.data_sets(NUM_STYLES), Standby(folder / "standby")
    ours.train(ours.data_sets(1, first=NUM_STYLES), num_steps=10)
    our_walls: list[float] = []
    peer_walls: list[float] = []
    for who in turns(options.peer_runs, options.rounds):
        if who == "peer":
            number = len(peer_walls)
            run = _peer_run(options, data_sets[number % NUM_STYLES], folder / f"peer-standby-{number}", options.batch_size)
            peer_walls.append(peer.measure(run).wall_seconds)
        else:
            workers.wait()
            our_walls.append(ours.train(data_sets, num_steps=options.num_steps, batch_size=options.batch_size).wall_seconds)
        print(f"{who}: {(peer_walls if who == 'peer' else our_walls)[-1]:.1f} s", flush=True)
    ours_an_hour, theirs_an_hour = NUM_STYLES * 3600 / median(our_walls), 3600 / fmean(peer_walls)
    return {"styles_per_hour_standby_over_peer": ours_an_hour / theirs_an_hour, "styles_per_hour_standby": ours_an_hour}


def speed_summary(our_walls: Sequence[float], peer_walls: Sequence[float], batch_size: int) -> Metrics:
    """`our_walls`: of all 16 styles at once; `peer_walls`: of one style each. Micro-batch 1 is the main figure and has the plain names."""
    ours_an_hour = NUM_STYLES * 3600 / median(our_walls)
    theirs_an_hour = 3600 / fmean(peer_walls)
    found = {
        "styles_per_hour_over_peer": ours_an_hour / theirs_an_hour,
        "styles_per_hour": ours_an_hour,
        "peer_styles_per_hour": theirs_an_hour,
        "wall_seconds": median(our_walls),
        "peer_wall_seconds": fmean(peer_walls),
        "peer_runs": len(peer_walls),
    }
    return found if batch_size == 1 else {f"{name}_b{batch_size}": value for name, value in found.items()}


def lone(ours: Fleet, folder: Path, options: Options) -> Metrics:
    """In the loop: what a step costs once everything is up."""
    data_sets = ours.data_sets(NUM_STYLES)
    rates: list[tuple[float, float]] = []
    for number in range(options.rounds):
        alone = ours.train([data_sets[number % NUM_STYLES]], num_steps=options.num_steps)
        pack = ours.train(data_sets, num_steps=options.num_steps)
        rates.append((pack.pictures_per_second, alone.pictures_per_second))
        print(f"pack {rates[-1][0]:.1f} pictures/s, alone {rates[-1][1]:.1f}", flush=True)
    return {
        "pack16_b1_over_lone": median(pack / alone for pack, alone in rates),
        "pack16_b1_pictures_per_second": median(pack for pack, _ in rates),
        "lone_b1_pictures_per_second": median(alone for _, alone in rates),
    }


def step(ours: Fleet, folder: Path, options: Options) -> Metrics:
    """In a process of its own, on one thread: with more they wait for one another on a busy machine."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-m", "bench.pack_step"], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(ran.stdout.splitlines()[-1])


def memory(ours: Fleet, folder: Path, options: Options) -> Metrics:
    """Each in a process of its own, as this server keeps no worker warm."""
    data_sets = ours.data_sets(NUM_STYLES)
    pack = ours.peak_memory_mib(ours.train(data_sets, num_steps=options.num_steps).jobs[0].name)
    alone = ours.train(data_sets[:1], num_steps=options.num_steps, batch_size=NUM_STYLES)
    alone_mib = ours.peak_memory_mib(alone.jobs[0].name)
    return {"memory_pack16_b1_over_lone_b16": pack / alone_mib, "memory_pack16_b1_mib": pack, "memory_lone_b16_mib": alone_mib}


def curve(ours: Fleet, folder: Path, options: Options) -> Metrics:
    """What a style costs as packs grow."""
    found = Metrics()
    for size in CURVE:
        trained = ours.train(ours.data_sets(size), num_steps=options.num_steps)
        found |= curve_point(size, trained.pictures_per_second, trained.wall_seconds)
        print(f"pack of {size}: {trained.pictures_per_second:.1f} pictures/s, {trained.wall_seconds:.0f} s", flush=True)
    return found


def curve_point(size: int, pictures_per_second: float, wall_seconds: float) -> Metrics:
    """At micro-batch 1 a style's step is a picture, so a second of training is shared by that many steps of styles."""
    return {
        f"curve_pictures_per_second_k{size}": pictures_per_second,
        f"curve_seconds_per_style_and_step_k{size}": 1 / pictures_per_second,
        f"curve_wall_seconds_per_style_k{size}": wall_seconds / size,
    }


def equal(ours: Fleet, folder: Path, options: Options) -> Metrics:
    """Some styles alone, and all of them in a pack; float32."""
    data_sets = ours.data_sets(NUM_STYLES)
    pack = ours.train(data_sets, num_steps=EQUAL_STEPS)
    differences = []
    for number in range(options.num_alone):
        alone = ours.train([data_sets[number]], num_steps=EQUAL_STEPS)
        differences.append(pack_equal.difference(pack.jobs[number], alone.jobs[0], EQUAL_STEPS))
        print(f"style {number}: {differences[-1]}", flush=True)
    return {
        "pack_vs_alone_max_relative_loss_diff": max(each.max_relative_loss_diff for each in differences),
        "pack_vs_alone_min_cosine_similarity": min(each.cosine_similarity for each in differences),
        "pack_vs_alone_styles": len(differences),
    }


def warm(ours: Fleet, folder: Path, options: Options) -> Metrics:
    """The server has just started: its first pack is cold, all that follows is warm. No data set comes twice."""
    cold = ours.train(ours.data_sets(NUM_STYLES), num_steps=options.num_steps).first_step_seconds
    second = ours.train(ours.data_sets(NUM_STYLES, first=NUM_STYLES), num_steps=options.num_steps).first_step_seconds
    print(f"first step: cold {cold:.1f} s, warm {second:.1f} s", flush=True)
    walls: list[tuple[float, float]] = []
    for number in range(options.rounds):
        data_set = ours.data_set(number, every=1)  # all pictures, as in bench-single
        theirs = peer.measure(_peer_run(options, data_set, folder / f"peer-warm-{number}", SINGLE_BATCH_SIZE)).wall_seconds
        single = ours.train([data_set], num_steps=options.num_steps, batch_size=SINGLE_BATCH_SIZE).wall_seconds
        walls.append((single, theirs))
        print(f"single: warm {single:.1f} s, the script {theirs:.1f} s", flush=True)
    return {
        "warm_first_step_over_cold": second / cold,
        "warm_first_step_seconds": second,
        "cold_first_step_seconds": cold,
        "warm_single_wall_over_peer": median(single / theirs for single, theirs in walls),
        "warm_single_wall_seconds": median(single for single, _ in walls),
        "warm_single_peer_wall_seconds": median(theirs for _, theirs in walls),
    }


PARTS: Mapping[str, Callable[[Fleet, Path, Options], Metrics]] = {
    "speed": speed,
    "lone": lone,
    "step": step,
    "memory": memory,
    "curve": curve,
    "equal": equal,
    "standby": standby,
    "warm": warm,
}
NEED_PEER = {"speed", "standby", "warm"}


@dataclass(frozen=True)
class Server:
    """Parts that share a server, and how it is started."""

    name: str
    parts: Sequence[str]
    start: Callable[[Path], AbstractContextManager[Fleet]]


_PACKS = ("--max-pack-size", str(LARGEST_PACK))
SERVERS = (
    Server("cold", ("speed", "lone", "step", "memory", "curve", "equal"), lambda folder: fleet(folder, *_PACKS, "--warm-idle-s", "0")),
    Server("standby", ("standby",), lambda folder: fleet(folder, *_PACKS, "--warm-idle-s", "0", "--standby-workers", "1")),
    Server("warm", ("warm",), lambda folder: fleet(folder, *_PACKS, "--warm-idle-s", str(WARM_IDLE_S))),
)


# The pieces.


def turns(peer_runs: int, our_runs: int) -> list[str]:
    """Who runs when: the script's runs spread before, between and after ours, so that a machine that slows down slows both."""
    gaps = our_runs + 1
    order: list[str] = []
    for gap in range(gaps):
        order += ["peer"] * (peer_runs // gaps + (1 if gap < peer_runs % gaps else 0))
        order += ["ours"] if gap < our_runs else []
    return order


def _peer_run(options: Options, data_set: Path, out_dir: Path, batch_size: int) -> PeerRun:
    assert options.peer is not None  # noqa: S101 - parse has seen to it
    return PeerRun(
        script=options.peer,
        base_dir=BASE_MODEL,
        data_dir=data_set,
        out_dir=out_dir,
        num_steps=options.num_steps,
        batch_size=batch_size,
        rank=RANK,
        learning_rate=LEARNING_RATE,
        seed=SEED,
    )


def parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(description="Measure packs against diffusers' example script and against lone jobs.")
    add = parser.add_argument
    add("peer", nargs="?", type=Path, help="path of train_text_to_image_lora.py; speed, standby and warm need it")
    add("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}; unset: all")
    add("--steps", dest="num_steps", type=int, default=60)
    add("--batch-size", type=int, default=1, help="micro-batch of the part speed; 1 is the main figure")
    add("--peer-runs", type=int, default=3, help="how often the script is timed in the part speed")
    add("--rounds", type=int, default=2, help="how often the parts speed, lone, standby and warm measure")
    add("--num-alone", type=int, default=2, help="styles that the part equal trains alone")
    add("--keep", type=Path, help="a new folder for logs and artifacts; unset: they are deleted")
    given = vars(parser.parse_args(arguments))
    given["parts"] = given["parts"].split(",")
    if unknown := [part for part in given["parts"] if part not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; parts: {', '.join(PARTS)}")
    if NEED_PEER.intersection(given["parts"]) and not (given["peer"] and given["peer"].is_file()):
        parser.error("speed, standby and warm need PEER=path/to/train_text_to_image_lora.py: the example script of diffusers")
    return Options(**given)


if __name__ == "__main__":
    sys.exit(main())
