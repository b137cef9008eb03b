"""The pictures that bases are trained on: Noto Emoji with their names, as an npm package ships them, or a folder like it."""

import json
import re
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from trainer.families._parts import latents_of

PACKAGE = "emoji-datasource-google@16.0.0"
FOLDER = "img/google/64"
NO_MOTIFS = {"Flags", "Component"}  # flags are alike to a model this small, and components are no pictures
THINGS = {"Animals & Nature", "Food & Drink", "Travel & Places", "Activities"}
SIDE = 64  # pixels
LARGEST = 88  # pixels along a side of those that are enlarged before they are cropped
ROWS = 64  # that are encoded at a time
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Captioned:
    """Latents with what says what they are; row i of each belongs together."""

    captions: Sequence[str]
    latents: Tensor  # (rows, channels, 16, 16), moved and scaled
    time_ids: Tensor  # (rows, 6): original size, corner of the crop, target size; each height first


def fetch(folder: Path) -> Path:
    """The package, unpacked below `folder`. Needs npm; raises CalledProcessError where npm fails, having said why."""
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    [packed] = folder.glob("*.tgz")
    with tarfile.open(packed) as files:
        wanted = [each for each in files.getmembers() if re.match(rf"package/(emoji\.json|{FOLDER}/)", each.name)]
        files.extractall(folder, wanted, filter="data")
    packed.unlink()
    return folder / "package"


def pictures_of(package: Path, *, things_only: bool = False) -> list[tuple[str, Image.Image]]:
    """Captions and pictures, 64 x 64 on white, in the order of the package's list: 1,636 of version 16.

    Of things only, animals, plants, food, places and games, 562: no people, no signs, no clocks, which are many and alike.
    """
    rows = json.loads((package / "emoji.json").read_text())
    kept = [row for row in rows if row["has_img_google"] and (_is_thing(row) if things_only else row["category"] not in NO_MOTIFS)]
    return [(caption(row["name"]), _on_white(package / FOLDER / row["image"])) for row in kept]


def _is_thing(row: Mapping[str, Any]) -> bool:
    return row["category"] in THINGS and row["subcategory"] != "time"


def caption(name: str) -> str:
    """`KISS: MAN, MAN` is an emoji of kiss man man."""
    return "an emoji of " + " ".join(re.findall(r"\w+", name.lower()))


@torch.no_grad()
def encode(vae: object, pictures: Sequence[tuple[str, Image.Image]], seed: int, *, cropped_share: float = 0.0) -> Captioned:
    """Each picture's latents; a share of them a second time, enlarged and cropped, so that corners of crops mean something."""
    generator = torch.Generator().manual_seed(seed)
    again = [picture for picture in pictures if torch.rand((), generator=generator) < cropped_share]
    crops = [_cropped(picture, generator) for _, picture in again]
    shown = [*(picture for _, picture in pictures), *(picture for picture, _ in crops)]
    corners = [*((0, 0) for _ in pictures), *(corner for _, corner in crops)]
    latents = torch.cat([latents_of(vae, shown[start : start + ROWS]).mode for start in range(0, len(shown), ROWS)])
    time_ids = torch.tensor([(SIDE, SIDE, *corner, SIDE, SIDE) for corner in corners], dtype=torch.float32)
    return Captioned([text for text, _ in [*pictures, *again]], latents, time_ids)


def _cropped(picture: Image.Image, generator: torch.Generator) -> tuple[Image.Image, tuple[int, int]]:
    """Scaled to a drawn size, then cut at a drawn corner: (top, left)."""
    side = int(torch.randint(SIDE + 4, LARGEST + 1, (), generator=generator))
    top, left = torch.randint(0, side - SIDE + 1, (2,), generator=generator).tolist()
    enlarged = picture.resize((side, side), Image.Resampling.LANCZOS)
    return enlarged.crop((left, top, left + SIDE, top + SIDE)), (top, left)


def _on_white(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        drawn = picture.convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return Image.alpha_composite(Image.new("RGBA", drawn.size, WHITE), drawn).convert("RGB")
