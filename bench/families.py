"""`make bench-families PEER=folder`: the losses of each family against those of diffusers' example script, for the same draws.

A tiny base of each family is trained for some steps by the trainer and by the script (in a process of its own, with the draws of our run:
bench/peer_losses.py), on the same pictures, in fp32, with the options of both alike. Writes bench/results/families.json: the largest
relative difference between the losses of a step. What is done so that they can be compared at all is said in docs/families.md.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from bench import pack_view, peer, results_file
from bench.peer_losses import ADAPTER, NUM_TIMES
from lorafleet.catalog import FAMILIES

STEPS, BATCH_SIZE, RANK, SIDE = 10, 2, 4, 64
NUM_PICTURES = 8  # whole batches: no picture is twice in one
GOAL = 1e-4
TRAINING: Mapping[str, Any] = {
    "learning_rate": 1e-3,
    "adam_beta1": 0.9,
    "adam_beta2": 0.99,
    # Adam divides a gradient by its own size: of one that is nearly nothing it would show the last bit.
    "adam_epsilon": 1e-5,
    "max_grad_norm": 1.0,
}
WEIGHT_DECAY = 1e-2
CLIP_TOKENS = 77  # as published: some scripts take them for given
WORDS = ("red", "green", "blue")
ENVIRONMENT = peer.environment()  # as it is before our engine and its group add their own
GROUP = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}


class ScriptFailed(Exception):
    """A script did not come to its last step; the message says with which words it ended."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """An example script, and what of its defaults is not ours."""

    path: str  # in examples/
    options: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass
class Draws:
    """What was drawn in our run."""

    noise: list[Tensor] = field(default_factory=list[Tensor])  # of each step, (rows, channels, height, width)
    times: list[Tensor] = field(default_factory=list[Tensor])  # of each step, (rows,): places in the scripts' table of times
    adapter: dict[str, Tensor] = field(default_factory=dict[str, Tensor])  # as training begins, by path


_TEXT_TO_IMAGE = "text_to_image/train_text_to_image_lora"
_DREAMBOOTH = "dreambooth/train_dreambooth_lora"
SCRIPTS: Mapping[str, Script] = {
    "sd1": Script(path=f"{_TEXT_TO_IMAGE}.py"),
    "sd2": Script(path=f"{_TEXT_TO_IMAGE}.py"),
    "sdxl": Script(path=f"{_TEXT_TO_IMAGE}_sdxl.py"),
    # Its weights are 1 then; else it would weigh by squares of the share of noise.
    "sd3": Script(path=f"{_DREAMBOOTH}_sd3.py", options={"weighting_scheme": "logit_normal", "precondition_outputs": 0}),
    "flux": Script(path=f"{_DREAMBOOTH}_flux.py", options={"guidance_scale": 1}),
    "flux2": Script(path=f"{_DREAMBOOTH}_flux2_klein.py", options={"text_encoder_out_layers": (9, 18, 27)}),
    "zimage": Script(path=f"{_DREAMBOOTH}_z_image.py"),
    "qwen_image": Script(path=f"{_DREAMBOOTH}_qwen_image.py"),
    "krea2": Script(path=f"{_DREAMBOOTH}_krea2.py", options={"lora_alpha": RANK}),
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    scripts = {name: options.peer / SCRIPTS[name].path for name in options.parts}
    if absent := sorted({str(path) for path in scripts.values() if not path.is_file()}):
        print(f"no such script: {', '.join(absent)}; PEER is a checkout of diffusers, or its folder examples", file=sys.stderr)
        return 2
    found: dict[str, float] = {"num_steps": STEPS}
    with tempfile.TemporaryDirectory(prefix="lorafleet-bench-") as name, lone_worker():
        for family, script in scripts.items():
            try:
                found[f"loss_difference_max_{family}"] = difference(*compared(family, script, Path(name) / family))
            except ScriptFailed as error:
                print(f"{family}: {error}", file=sys.stderr)
            # After each: what is broken off keeps what it has.
            results_file.write("families", pack_view.laid_over_earlier(found, results_file.RESULTS / "families.json"))
    return 0 if all(found.get(f"loss_difference_max_{family}", math.inf) <= GOAL for family in scripts) else 1


def difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest over all steps, relative. Raises ValueError unless both have the same number of them."""
    return max(abs(mine - other) / abs(other) for mine, other in zip(ours, theirs, strict=True))


def compared(family: str, script: Path, folder: Path) -> tuple[list[float], list[float]]:
    """The losses of both by steps."""
    base = write_base(family, folder / "base")
    ours, draws, order = our_losses(family, base, pictures(folder / "data", range(NUM_PICTURES)), folder / "ours")
    data = pictures(folder / "in-order", order)
    theirs = script_losses(family, script, base, data, draws, folder)
    print(f"{family}: ours {ours}\n{' ' * len(family)}  the script's {theirs}", flush=True)
    return ours, theirs


# The base and the pictures


def write_base(family: str, folder: Path) -> Path:
    """A tiny base, as the tests have it, CLIP as long as it is published. Times that it would shift by size are shifted alike instead:
    that is all that the scripts know."""
    from tests.trainer.families import words
    from tests.trainer.families.rows import ROWS
    from tests.trainer.sd import bases
    from tests.trainer.sdxl import tiny_base

    others: dict[str, Callable[[Path], Path]] = {
        "sd1": bases.copy,
        "sd2": lambda folder: bases.write_sd2(folder, prediction_type="v_prediction"),
        "sdxl": tiny_base.write,
    }
    if family in others:
        return others[family](folder)
    row = ROWS[family]
    with patch.object(words, "MAX_TOKENS", CLIP_TOKENS), patch.object(tiny_base, "MAX_TOKENS", CLIP_TOKENS):
        row.write(folder, row.variants[0])
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    if config["use_dynamic_shifting"]:
        path.write_text(json.dumps({**config, "use_dynamic_shifting": False, "shift": 3.0}))
    return folder


def pictures(folder: Path, numbers: Sequence[int]) -> Path:
    """Squares of the size that is trained, so that nobody crops or scales; each with a caption, of another length than the others.

    The script of Qwen-Image takes it for given that of two captions one is shorter.
    """
    folder.mkdir(parents=True)
    lines: list[str] = []
    for place, number in enumerate(numbers):
        name = f"{place:03d}.png"
        _drawn(number).save(folder / name)
        lines.append(json.dumps({"file_name": name, "text": f"a {WORDS[number % len(WORDS)]}" + " thing" * number}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def _drawn(number: int) -> Image.Image:
    down, across = np.mgrid[0:SIDE, 0:SIDE]
    waves = [np.sin(across * 0.05 * (number + 1) + shift) + np.cos(down * 0.07 * (number + 2)) for shift in range(3)]
    return Image.fromarray((127.5 + 63 * np.stack(waves, axis=-1)).astype(np.uint8))


# Ours


@contextmanager
def lone_worker() -> Iterator[None]:
    """The group of this process alone."""
    import torch.distributed as dist

    from service.backends.ray_head import free_ports

    os.environ.update(GROUP, MASTER_PORT=str(free_ports(1)[0]))
    dist.init_process_group("gloo", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def our_losses(family: str, base: Path, data: Path, folder: Path) -> tuple[list[float], Draws, list[int]]:
    """With what was drawn, and the pictures by number as the steps took them."""
    from tests.trainer.packs import Packs
    from trainer.data.sampler import Sampler
    from trainer.group import Group

    packs = Packs(folder, Group.current())
    style = packs.style(
        "style",
        base_model={"uri": f"file://{base}", "family": family},
        dataset={"uri": f"file://{data}", "validation_fraction": 0.0, "resolution": SIDE},
        adapter={"rank": RANK, "target_modules": list(FAMILIES.get(family).denoiser.target_modules)},
        training={
            **TRAINING,
            "max_steps": STEPS,
            "micro_batch_size": BATCH_SIZE,
            "lr_scheduler": "constant",
            "weight_decay": WEIGHT_DECAY,
        },
        checkpointing={"every_steps": STEPS},
    )
    with recorded(family) as draws:
        endings = packs.train(style).endings
    if endings != {style.job: "succeeded"}:
        raise RuntimeError(f"{family}: {endings}")
    ready = packs.ready(style)
    sampler = Sampler(ready.key, ready.members, BATCH_SIZE)
    names = [ready.data_set.pictures[sample].path for step in range(STEPS) for sample in sampler.batch(step)]
    return packs.losses("style"), draws, [int(Path(name).stem) for name in names]


@contextmanager
def recorded(name: str) -> Iterator[Draws]:
    """What a run within draws. Of flow matching the shares of noise are rounded up to thousandths, which scripts have in their table."""
    from trainer.families import family
    from trainer.families._flow import FlowFamily
    from trainer.objectives.diffusion import Diffusion
    from trainer.objectives.flow import FlowMatching
    from trainer.pack import initial_state

    draws, of = Draws(), family(name)
    kind = FlowMatching if isinstance(of, FlowFamily) else Diffusion
    first, noise, times = initial_state.initial_row, kind.noise, kind.times
    shares: list[float] = []

    def begins(where: Any, *others: Any) -> Tensor:
        row = first(where, *others)
        draws.adapter.update({path.partition(".")[2]: tensor for path, tensor in where.named(row).items()})
        return row

    def noises(self: Any, *others: Any) -> Any:
        drawn = noise(self, *others)
        draws.noise.append(drawn.told)
        return drawn

    def draws_times(self: Any, *others: Any) -> Tensor:
        shares.clear()
        found = times(self, *others)
        draws.times.append(torch.tensor([NUM_TIMES - round(NUM_TIMES * share) for share in shares]) if shares else found)
        return found

    def rounded_up(generator: np.random.Generator) -> float:
        shares.append(math.ceil(NUM_TIMES * type(of).density(generator)) / NUM_TIMES)  # pyright: ignore
        return shares[-1]

    with (
        patch.object(initial_state, "initial_row", begins),
        patch.object(kind, "noise", noises),
        patch.object(kind, "times", draws_times),
        patch.dict(vars(of), {"density": rounded_up} if kind is FlowMatching else {}),
    ):
        yield draws


# The script's


def script_losses(family: str, script: Path, base: Path, data: Path, draws: Draws, folder: Path) -> list[float]:
    """Raises ScriptFailed with its last words."""
    given, out = folder / "draws.safetensors", folder / "losses.json"
    adapter = {f"{ADAPTER}{name}": tensor for name, tensor in draws.adapter.items()}
    save_file({"noise": torch.stack(draws.noise), "times": torch.stack(draws.times), **adapter}, given)
    command = [sys.executable, "-m", "bench.peer_losses", str(script), str(given), str(out), *_script_options(family, base, data, folder)]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if ended.returncode != 0 or not out.exists():
        raise ScriptFailed(f"{script}: exit status {ended.returncode}; its last words:\n{ended.stderr[-peer.BYTES_KEPT :]}")
    return json.loads(out.read_text())


def _script_options(family: str, base: Path, data: Path, folder: Path) -> list[str]:
    of, is_dreambooth = FAMILIES.get(family), SCRIPTS[family].path.startswith(_DREAMBOOTH)
    options: dict[str, object] = {
        "pretrained_model_name_or_path": base,
        "output_dir": folder / "theirs",
        "cache_dir": folder / "cache",
        "image_column": "image",
        "caption_column": "text",
        "resolution": SIDE,
        "train_batch_size": BATCH_SIZE,
        "max_train_steps": STEPS,
        "rank": RANK,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "mixed_precision": "no",
        "seed": 0,
        "adam_weight_decay": WEIGHT_DECAY,
        **TRAINING,
        **(_dreambooth_options(family, data) if is_dreambooth else {"train_data_dir": data}),
        **SCRIPTS[family].options,
    }
    if is_dreambooth:
        options["lora_layers"] = ",".join(of.denoiser.target_modules)
    return [word for name, value in options.items() for word in (f"--{name}", *_words(value))]


def _dreambooth_options(family: str, data: Path) -> dict[str, object]:
    from tests.trainer.families.rows import ROWS

    return {
        "dataset_name": data,
        "instance_prompt": "unused: each picture has a caption",
        "max_sequence_length": ROWS[family].drawing["max_sequence_length"],
        "weighting_scheme": "none",
    }


def _words(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, tuple) else [str(value)]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare the losses of each family with those of diffusers' example scripts.")
    parser.add_argument("peer", type=_examples, help="a checkout of diffusers, or its folder examples")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(SCRIPTS), help="families; unset: all")
    return parser.parse_args(arguments)


def _examples(text: str) -> Path:
    folder = Path(text).resolve()
    return folder / "examples" if (folder / "examples").is_dir() else folder


if __name__ == "__main__":
    sys.exit(main())
