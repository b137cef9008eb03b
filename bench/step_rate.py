"""How long a step takes in the loop, without Ray: `step_rate.py single` or `pack` prints seconds per step, the median of some.

Run by `bench.before` in two trees, so it knows only what both have: the packs of the tests.
"""

import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

STEPS, WARM_UP = 10, 2
KINDS = {"single": (1, 8), "pack": (16, 1)}  # styles, pictures of each


def main() -> int:
    num_styles, pictures = KINDS[sys.argv[1]]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    torch.set_num_threads(os.cpu_count() or 1)
    from lorafleet import spec
    from trainer.engine import select_accelerator

    select_accelerator(spec.ClusterSpec())
    from tests.trainer.packs import Packs, Recorder
    from trainer.group import Group

    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    with tempfile.TemporaryDirectory(prefix="lorafleet-step-rate-") as folder:
        packs = Packs(Path(folder), Group.current())
        training = {"max_steps": STEPS, "micro_batch_size": pictures}
        adapter = {"rank": 16, "target_modules": ["to_q", "to_k", "to_v", "to_out.0"]}
        styles = [packs.style(f"s{number}", training={**training, "seed": number}, adapter=adapter) for number in range(num_styles)]
        recorder, times_s = Recorder(), list[float]()
        recorder.on_step = lambda job, _step: times_s.append(time.perf_counter()) if job.endswith("/s0") else None
        packs.train(*styles, recorder=recorder)
    durations_s = [after - before for before, after in zip(times_s[WARM_UP:-1], times_s[WARM_UP + 1 :], strict=True)]
    print(statistics.median(durations_s))
    return 0


if __name__ == "__main__":
    sys.exit(main())
