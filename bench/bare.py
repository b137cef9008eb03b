"""How fast a style's loop is beside a bare eager one with the same cached inputs: `python -m bench.bare` prints the ratios as JSON.

The bare one has nothing around it: diffusers' model, PEFT's adapter, torch's AdamW, latents and texts in memory. Both train on the same
base, in one process without Ray, a step of either by turns, so that a busy machine is as busy for either.
"""

import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig
from torch import Tensor

ROUNDS, WARM_UP = 60, 4
BATCHES = (1, 8)
RANK, LEARNING_RATE, MAX_GRAD_NORM, WEIGHT_DECAY = 16, 1e-3, 1.0, 1e-2
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]

Step = Callable[[], None]


def main() -> int:
    alone()
    print(json.dumps({f"in_loop_over_bare_batch{batch}": ratio(batch) for batch in BATCHES}))
    return 0


def alone() -> None:
    """Makes this process a group of one, as a worker is in its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free.getsockname()[1]))
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)


def ratio(batch: int) -> float:
    """Of pictures a second, ours over theirs: the median over rounds of a step of each."""
    with tempfile.TemporaryDirectory(prefix="lorafleet-bare-") as folder:
        ours, theirs = _steps(Path(folder), batch)
        rounds: list[float] = []
        for number in range(WARM_UP + ROUNDS):
            if number % 2:
                mine_s, bare_s = _seconds(ours), _seconds(theirs)
            else:
                bare_s, mine_s = _seconds(theirs), _seconds(ours)
            rounds.append(bare_s / mine_s)
    return statistics.median(rounds[WARM_UP:])


def _seconds(step: Step) -> float:
    began_s = time.perf_counter()
    step()
    return time.perf_counter() - began_s


def _steps(folder: Path, batch: int) -> tuple[Step, Step]:
    from lorafleet import spec
    from trainer.engine import select_accelerator

    select_accelerator(spec.ClusterSpec())
    from tests.trainer.packs import Packs
    from trainer.group import Group

    most = 10 * (WARM_UP + ROUNDS)  # so that nothing is due in the steps that are timed
    training = {"max_steps": most, "micro_batch_size": batch, "learning_rate": LEARNING_RATE, "lr_scheduler": "constant"}
    adapter, saving = {"rank": RANK, "target_modules": TARGETS}, {"every_steps": most}
    packs = Packs(folder, Group.current())
    run = packs.pack(packs.style("style", training=training, adapter=adapter, checkpointing=saving, dataset={"validation_fraction": 0.0}))
    encoded, captions = run.members[0].encoded, run.members[0].style.captions
    shape = Counter(each.shape for each in encoded.latents.values()).most_common(1)[0][0]
    alike = [number for number, each in encoded.latents.items() if each.shape == shape]
    latents = torch.stack([encoded.latents[number] for number in alike])
    texts = encoded.text([captions[number] for number in alike])["text"]
    return run._train_step, Bare.of(run.base, latents, texts, batch).step  # pyright: ignore[reportPrivateUsage]


@dataclass
class Bare:
    """A loop over a UNet that predicts noise."""

    unet: Any
    scheduler: Any
    latents: Tensor  # (pictures, channels, h, w)
    texts: Tensor  # (pictures, tokens, width)
    batch: int
    trained: list[Tensor]
    optimizer: torch.optim.Optimizer
    place: int = 0

    @classmethod
    def of(cls, base: Any, latents: Tensor, texts: Tensor, batch: int) -> "Bare":
        """`base`: a FrozenBase, of which it gets a UNet of its own."""
        unet = base.load_part("unet")
        unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=TARGETS))
        trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        return cls(unet, base.parts["scheduler"], latents, texts, batch, trained, optimizer)

    def step(self) -> None:
        rows = [(self.place + row) % len(self.latents) for row in range(self.batch)]
        self.place += self.batch
        clean, text = self.latents[rows], self.texts[rows]
        noise, times = torch.randn_like(clean), torch.randint(0, self.scheduler.config.num_train_timesteps, (self.batch,))
        predicted = self.unet(self.scheduler.add_noise(clean, noise, times), times, text).sample
        loss = F.mse_loss(predicted, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss.item()


if __name__ == "__main__":
    sys.exit(main())
