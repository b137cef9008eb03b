"""Trains the small bases that draw: `sdxl`, of Stable Diffusion XL's kind, and `flow`, of Stable Diffusion 3's.

    python -m examples.train_base sdxl|flow --out FOLDER [--pictures FOLDER] [--steps N] [--seed N]

Both stand on examples/models/emoji-sd, so that a core is enough. `sdxl` is begun from its weights and learns only what its
kind has more (bases/sdxl.py); the transformer of `flow` learns from nothing, but its text encoders begin with what emoji-sd's
knows (bases/flow.py). Pictures are Noto Emoji, from npm unless a folder like that package is named. FOLDER is a base that
diffusers and lorafleet load, written again every so many steps; beside it are pictures drawn at these steps. The same seed
gives the same base on the same machine.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from examples.bases.base import Kind, save
from examples.bases.flow import Flow
from examples.bases.pictures import encode, fetch, pictures_of
from examples.bases.sdxl import Sdxl
from examples.bases.training import Plan, train
from lorafleet.contact_sheet import Row, contact_sheet

EMOJI_SD = Path(__file__).resolve().parent / "models" / "emoji-sd"
NAMES = ("red apple", "panda face", "house building", "owl", "evergreen tree", "whale", "sailboat", "sunflower")
PROMPTS = [f"an emoji of {name}" for name in NAMES]
SIDE = 64  # pixels


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the shipped base was trained by."""

    steps: int  # that the rates are planned for
    until: int  # the step that it was taken from: of a mean of weights, which needs no low rates at the end
    batch: int
    things_only: bool  # see bases.pictures.pictures_of
    cropped_share: float


RECIPES = {
    "sdxl": Recipe(steps=1000, until=400, batch=16, things_only=False, cropped_share=0.1),
    "flow": Recipe(steps=2400, until=1200, batch=16, things_only=True, cropped_share=0.0),
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    recipe, began = RECIPES[options.kind], time.monotonic()
    torch.manual_seed(options.seed)

    with tempfile.TemporaryDirectory() as scratch:
        pictures = pictures_of(options.pictures or fetch(Path(scratch)), things_only=recipe.things_only)
    kind = Flow(EMOJI_SD, [text for text, _ in pictures]) if options.kind == "flow" else Sdxl(EMOJI_SD)
    rows = encode(kind.pipeline.vae, pictures, options.seed, cropped_share=recipe.cropped_share)
    kind.prepare(rows, torch.Generator().manual_seed(options.seed))
    _tell(f"{len(rows.captions)} rows", began)

    def look(step: int, told: str) -> None:
        _tell(f"step {step}: {told}", began)
        draw(kind, options.out.with_name(f"{options.out.name}-{step:05d}.png"))
        save(kind.pipeline, options.out)

    options.out.parent.mkdir(parents=True, exist_ok=True)
    steps, until = (options.steps, options.steps) if options.steps else (recipe.steps, recipe.until)
    plan = Plan(steps=steps, until=until, batch=recipe.batch, seed=options.seed, every=options.every)
    train(kind, rows, plan, look)
    return 0


def draw(kind: Kind, path: Path) -> None:
    """The same prompts and seed every time."""
    kind.pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        pictures = kind.pipeline(PROMPTS, height=SIDE, width=SIDE, generator=torch.Generator().manual_seed(4), **kind.drawing).images
    contact_sheet(PROMPTS, [Row("", pictures)], cell=2 * SIDE).save(path)


def _tell(what: str, began: float) -> None:
    print(f"{what}; {time.monotonic() - began:.0f} s, {time.process_time():.0f} s of processors", flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small base that draws emoji.")
    parser.add_argument("kind", choices=RECIPES)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the base is written")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="the unpacked npm package (else npm fetches it)")
    parser.add_argument("--steps", type=int, help="else as the base in examples/models")
    parser.add_argument("--every", type=int, default=200, metavar="STEPS", help="between two looks at it")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.getLogger("transformers").setLevel(logging.ERROR)  # what a new part lacks, it lacks on purpose
    sys.exit(main())
