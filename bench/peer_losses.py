"""`python -m bench.peer_losses SCRIPT DRAWS OUT …`: runs an example script of diffusers with draws that are given; writes its losses.

It knows nothing of lorafleet. The script is somebody else's and runs unchanged; what it imports is replaced before it begins: the noise,
the times (as places in the scheduler's table of a thousand), the beginning of the adapters, the sampling of latents (their mode instead)
and the order of the pictures (as they lie). It ends when as many losses are known as there are draws.
"""

import json
import random
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

ADAPTER = "adapter."  # before the names of the tensors that adapters begin with
NUM_TIMES = 1000


class Done(BaseException):
    """All losses are known; no `except Exception` of a script is to stop it."""


def main() -> int:
    script, draws, out, *options = sys.argv[1:]
    given = load_file(draws)
    losses: list[float] = []
    replace(given, losses)
    sys.argv = [script, *options]
    sys.path.insert(0, str(Path(script).parent))  # as if it were begun by its name
    with suppress(Done):
        runpy.run_path(script, run_name="__main__")
    Path(out).write_text(json.dumps(losses))
    return 0


def replace(given: Mapping[str, Tensor], losses: list[float]) -> None:
    _replace_noise(iter(given["noise"]))
    _replace_times(iter(given["times"]))
    _replace_latents()
    _replace_adapters({name.removeprefix(ADAPTER): tensor for name, tensor in given.items() if name.startswith(ADAPTER)})
    _replace_order()
    _record(losses, len(given["noise"]))


def _replace_noise(noise: Iterator[Tensor]) -> None:
    """Of each step (rows, ...), in its order of calls. Raises where a script asks for noise of another size."""
    torch.randn_like = lambda like, **_: next(noise).reshape(like.shape).to(like)


def _replace_times(places: Iterator[Tensor]) -> None:
    """Scripts of diffusion draw whole numbers, scripts of flow matching a share of the table."""
    from diffusers import training_utils

    drawn_otherwise = torch.randint

    def randint(*args: Any, **how: Any) -> Tensor:
        return next(places) if args[:2] == (0, NUM_TIMES) else drawn_otherwise(*args, **how)

    torch.randint = randint
    training_utils.compute_density_for_timestep_sampling = lambda *_, **__: (next(places) + 0.5) / NUM_TIMES


def _replace_latents() -> None:
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mode()


def _replace_adapters(beginnings: Mapping[str, Tensor]) -> None:
    """By the path in the denoiser. Raises where the script's adapters sit elsewhere."""
    from diffusers.loaders.peft import PeftAdapterMixin

    add: Callable[..., None] = PeftAdapterMixin.add_adapter

    def added(self: Any, *args: Any, **how: Any) -> None:
        add(self, *args, **how)
        theirs = {name.replace(".default.", "."): each for name, each in self.named_parameters() if each.requires_grad}
        if theirs.keys() != beginnings.keys():
            raise ValueError(f"the script's adapters are on other layers: {sorted(theirs.keys() ^ beginnings.keys())[:4]}")
        with torch.no_grad():
            for name, parameter in theirs.items():
                parameter.copy_(beginnings[name])

    PeftAdapterMixin.add_adapter = added


def _replace_order() -> None:
    """As the pictures lie, batch by batch."""
    make = torch.utils.data.DataLoader.__init__

    def made(self: Any, *args: Any, **how: Any) -> None:
        make(self, *args, **{**how, "shuffle": None if "batch_sampler" in how else False})

    torch.utils.data.DataLoader.__init__ = made
    random.Random.shuffle = lambda self, x: None
    random.shuffle = lambda x: None


def _record(losses: list[float], num_steps: int) -> None:
    """The losses as the script logs them."""
    from accelerate import Accelerator

    of_scripts: Any = Accelerator

    def log(self: Any, values: Mapping[str, Any], *_: Any, **__: Any) -> None:
        losses.extend(float(value) for name, value in values.items() if name in ("loss", "train_loss"))
        if len(losses) == num_steps:
            raise Done

    of_scripts.init_trackers = lambda self, *_, **__: None
    of_scripts.log = log


if __name__ == "__main__":
    sys.exit(main())
