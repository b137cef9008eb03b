"""Times the peer: the diffusers example script that trains a LoRA on one device. It knows nothing of lorafleet.

The script is somebody else's and is not part of this repository: whoever measures gets it and names its path. It runs
unchanged in a process of its own, and is timed by the progress bar it prints.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

NUM_WARM_UP_STEPS = 10  # they also pay for allocators, the choice of kernels and caches: no rate is taken from them
IMPORTS = ("accelerate", "datasets", "diffusers", "peft", "torchvision", "transformers")
BYTES_KEPT = 4_096  # of the peer's output: to find progress bars in, and to show when it fails

Clock = Callable[[], float]

_BAR = re.compile(rb"Steps:[^\r\n]*?\| *(\d+)/\d+ \[")


class PeerError(Exception):
    """The peer cannot be measured; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class PeerRun:
    """One training of the peer. `data_dir` holds pictures and a metadata.jsonl (file_name, text), nothing else."""

    script: Path
    base_dir: Path
    data_dir: Path
    out_dir: Path
    num_steps: int
    batch_size: int
    rank: int
    learning_rate: float
    seed: int
    resolution: int = 64
    mixed_precision: str = "no"  # "no" is float32


@dataclass(frozen=True, kw_only=True)
class PeerResult:
    pictures_per_second: float  # in the loop, warm-up left out
    wall_seconds: float  # from launch to exit
    start_up_seconds: float  # from launch to the empty progress bar: imports, model, data set


def measure(run: PeerRun, clock: Clock = time.monotonic) -> PeerResult:
    """Train once as `run` says and time it from outside.

    Raises PeerError where the script or a package it imports is missing, and where it fails.
    """
    check(run)
    launched_at = clock()
    reached_at = _train(run, clock)
    wall_seconds = clock() - launched_at
    if sorted(reached_at) != list(range(run.num_steps + 1)):
        raise PeerError(f"{run.script}: its progress bar does not show every step from 0 to {run.num_steps}")
    return PeerResult(
        pictures_per_second=pictures_per_second(reached_at, _num_pictures(run.data_dir), run.batch_size),
        wall_seconds=wall_seconds,
        start_up_seconds=reached_at[0] - launched_at,
    )


def check(run: PeerRun) -> None:
    """Raises PeerError naming what is missing before a minute is spent on it."""
    if not run.script.is_file():
        raise PeerError(
            f"{run.script}: no such file; get examples/text_to_image/train_text_to_image_lora.py "
            "from the diffusers repository and pass its path as PEER="
        )
    missing = [name for name in IMPORTS if importlib.util.find_spec(name) is None]
    if missing:
        raise PeerError(f"the peer script imports {', '.join(missing)}: pip install {' '.join(missing)}")
    if run.out_dir.is_dir() and any(run.out_dir.iterdir()):
        raise PeerError(f"out_dir: {run.out_dir} is not empty: what an earlier run cached there would count as speed")
    if run.num_steps <= NUM_WARM_UP_STEPS:
        raise PeerError(f"num_steps: {run.num_steps} leaves nothing to time after {NUM_WARM_UP_STEPS} warm-up steps")


def command(run: PeerRun, python: str = sys.executable) -> list[str]:
    """The command line of one run: no validation pictures, no checkpoint before the end."""
    options: Mapping[str, object] = {
        "pretrained_model_name_or_path": run.base_dir,
        "train_data_dir": run.data_dir,
        "output_dir": run.out_dir,
        "cache_dir": run.out_dir / "cache",
        "image_column": "image",
        "caption_column": "text",
        "resolution": run.resolution,
        "train_batch_size": run.batch_size,
        "max_train_steps": run.num_steps,
        "checkpointing_steps": run.num_steps + 1,
        "rank": run.rank,
        "learning_rate": run.learning_rate,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "mixed_precision": run.mixed_precision,
        "seed": run.seed,
    }
    return [python, str(run.script), *(f"--{name}={value}" for name, value in options.items())]


def pictures_per_second(reached_at: Mapping[int, float], num_pictures: int, batch_size: int) -> float:
    """The rate over all steps after warm-up, from the moment each step was done (step 0: the loop's start).

    The peer's last batch of an epoch holds what is left over, so pictures are counted, not steps.
    """
    last = max(reached_at)
    sizes = [min(batch_size, num_pictures - start) for start in range(0, num_pictures, batch_size)]
    num_timed = sum(sizes[step % len(sizes)] for step in range(NUM_WARM_UP_STEPS, last))
    return num_timed / (reached_at[last] - reached_at[NUM_WARM_UP_STEPS])


def _train(run: PeerRun, clock: Clock) -> dict[int, float]:
    """Run the peer to its end; returns when each step was done."""
    reached_at: dict[int, float] = {}
    seen = b""
    reader, writer = os.pipe()
    process = subprocess.Popen(command(run), env=environment(), stdin=subprocess.DEVNULL, stdout=writer, stderr=writer)
    os.close(writer)
    try:
        while chunk := os.read(reader, BYTES_KEPT):  # what has arrived, without waiting for more
            now = clock()
            seen = (seen + chunk)[-2 * BYTES_KEPT :]
            for step in steps_shown(seen):
                reached_at.setdefault(step, now)
        process.wait()
    finally:
        process.kill()  # does nothing where it has ended
        process.wait()
        os.close(reader)
    if process.returncode != 0:
        last_words = seen[-BYTES_KEPT:].decode(errors="replace")
        raise PeerError(f"{run.script}: exit status {process.returncode}; its last words:\n{last_words}")
    return reached_at


def steps_shown(output: bytes) -> list[int]:
    """The step numbers of all progress bars in `output`.

    Bars are found by their form, not by line: each begins with a carriage return and ends with none, so a line would
    be complete only once the next step is done.
    """
    return [int(number) for number in _BAR.findall(output)]


def environment() -> dict[str, str]:
    """The caller's, but offline: nothing the peer might look up belongs into its time."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def _num_pictures(data_dir: Path) -> int:
    lines = (data_dir / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return sum("file_name" in json.loads(line) for line in lines if line.strip())
