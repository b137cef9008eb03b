"""What a step of a pack of 16 costs beside one of one style: `python -m bench.pack_step` prints the ratio as JSON.

Both go through the same model in a batch of 16, in one process without Ray, a step of either by turns. What is left of 1 are the pack's
own costs: 16 draws, small products for each style, 16 updates and reports.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import bare

NUM_STYLES = 16
ROUNDS, WARM_UP = 30, 3


def main() -> int:
    bare.alone()
    print(json.dumps({"pack16_b1_over_lone_b16": ratio()}))
    return 0


def ratio() -> float:
    """Of pictures a second, the pack's over the lone style's: the median over rounds of a step of each."""
    with tempfile.TemporaryDirectory(prefix="lorafleet-pack-step-") as name:
        pack, lone = _step(Path(name) / "pack", NUM_STYLES, 1), _step(Path(name) / "lone", 1, NUM_STYLES)
        rounds: list[float] = []
        for number in range(WARM_UP + ROUNDS):
            first, second = (pack, lone) if number % 2 else (lone, pack)
            seconds = {first: _seconds(first), second: _seconds(second)}
            rounds.append(seconds[lone] / seconds[pack])
    return statistics.median(rounds[WARM_UP:])


def _step(folder: Path, num_styles: int, batch: int) -> Callable[[], None]:
    from tests.trainer.packs import Packs
    from trainer.group import Group

    folder.mkdir()
    most = 10 * (WARM_UP + ROUNDS)  # so that nothing is due in the steps that are timed
    parts: dict[str, dict[str, Any]] = {
        "training": {"max_steps": most, "micro_batch_size": batch, "learning_rate": bare.LEARNING_RATE, "lr_scheduler": "constant"},
        "adapter": {"rank": bare.RANK, "target_modules": bare.TARGETS},
        "checkpointing": {"every_steps": most},
        "dataset": {"validation_fraction": 0.0},
    }
    packs = Packs(folder, Group.current())
    run = packs.pack(*(packs.style(f"style-{number}", **parts) for number in range(num_styles)))
    return run._train_step  # pyright: ignore[reportPrivateUsage]


def _seconds(step: Callable[[], None]) -> float:
    began_s = time.perf_counter()
    step()
    return time.perf_counter() - began_s


if __name__ == "__main__":
    sys.exit(main())
