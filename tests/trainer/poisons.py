"""Styles that are broken on purpose, one kind beside the other, and what the reason of each must name."""

import io
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from examples.demo import BASE_MODEL
from lorafleet.contract.run_manifest import Style
from tests.trainer.packs import Packs

Files = Mapping[str, bytes | str]
Poisoned = tuple[Style, tuple[str, ...]]  # and words of which its reason holds one
GOOD: dict[str, Any] = {
    "dataset": {"resolution": 64, "validation_fraction": 0.0},
    "training": {"max_steps": 2, "micro_batch_size": 2, "learning_rate": 1e-3},
    "checkpointing": {"every_steps": 2},
}


def picture(colour: str = "red", size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


P = picture()
NESTED = "[" * 100_000

# Files of the data set, and the one that the reason must name, or else the set.
DATA: dict[str, tuple[Files, str]] = {
    "half-a-character": ({"a.png": P, "metadata.jsonl": '{"file_name": "a.png", "text": "cat \\ud83d"}'}, "metadata.jsonl"),
    "open-quote": ({"a.png": P, "metadata.csv": 'file_name,text\na.png,"open\n' + "a.png,word\n" * 20_000}, "metadata.csv"),
    "nested": ({"a.png": P, "metadata.jsonl": '{"file_name": "a.png", "text": "x", "y": ' + NESTED}, "metadata.jsonl"),
    "no-object": ({"a.png": P, "metadata.jsonl": "[1]"}, "metadata.jsonl line 1"),
    "half-a-picture": ({"a.png": P[:60], "a.txt": "x"}, "a.png"),
    "no-picture": ({"a.png": b"GIF89a no", "a.txt": "x"}, "a.png"),
    "another-alphabet": ({"a.png": P, "a.txt": b"caf\xe9"}, "a.txt"),
    "not-there": ({"a.png": P, "metadata.jsonl": '{"file_name": "b.png", "text": "x"}\n'}, ".png"),
    "no-captions": ({"a.png": P, "readme.md": "x"}, "dataset.uri"),
    "nothing": ({}, "dataset.uri"),
}

# A file of the base model, and what it holds instead.
BASES: dict[str, tuple[str, str]] = {
    "nested-config": ("unet/config.json", NESTED),
    "no-number": ("unet/config.json", '{"sample_size": 8, "block_out_channels": "Infinity"}'),
    "odd-sizes": ("unet/config.json", '{"sample_size": 1e999, "block_out_channels": [1]}'),
    "no-config": ("vae/config.json", "7"),
    "no-header": ("unet/diffusion_pytorch_model.safetensors", "\xff" * 64),
    "no-index": ("model_index.json", '{"_class_name": [[[]]]}'),
}

# What lies in the output's folder already.
OUTPUTS: dict[str, tuple[str, str]] = {
    "no-checkpoint": ("checkpoints/step-00000001/manifest.json", NESTED),
    "half-a-checkpoint": ("checkpoints/step-00000001/manifest.json", '{"format": "lorafleet-checkpoint-1", "files": {"x": 1}}'),
    "no-artifact": ("adapter/manifest.json", "no JSON at all"),
}


class Poisons:
    """Makes good and bad styles in a folder."""

    def __init__(self, packs: Packs, folder: Path) -> None:
        self._packs, self._folder = packs, folder
        self._good = self._set(
            "good", {**{f"{n}.png": picture("blue") for n in range(4)}, **{f"{n}.txt": f"a square {n}" for n in range(4)}}
        )
        self.makers: dict[str, Callable[[str], Poisoned]] = {
            **{kind: self._maker_of_data(kind, *how) for kind, how in DATA.items()},
            **{kind: self._maker_of_base(kind, *how) for kind, how in BASES.items()},
            **{kind: self._maker_of_output(*how) for kind, how in OUTPUTS.items()},
        }

    def good(self, name: str, **parts: Any) -> Style:
        return self.style(name, self._good, **parts)

    def style(self, name: str, data: Path, **parts: Any) -> Style:
        return self._packs.style(name, **{**GOOD, "dataset": {**GOOD["dataset"], "uri": f"file://{data}"}, **parts})

    def _maker_of_data(self, kind: str, files: Files, names: str) -> Callable[[str], Poisoned]:
        data = self._set(kind, files)
        return lambda name: (self.style(name, data), (names, str(data)))

    def _maker_of_base(self, kind: str, file: str, content: str) -> Callable[[str], Poisoned]:
        base = self._folder / f"base-{kind}"
        shutil.copytree(BASE_MODEL, base)
        (base / file).write_bytes(content.encode("latin-1"))
        return lambda name: (self.style(name, self._good, base_model={"uri": f"file://{base}"}), (str(base),))

    def _maker_of_output(self, file: str, content: str) -> Callable[[str], Poisoned]:
        def make(name: str) -> Poisoned:
            style = self.style(name, self._good)
            there = Path(style.output_uri.removeprefix("file://")) / file
            there.parent.mkdir(parents=True)
            there.write_text(content)
            return style, (style.output_uri,)

        return make

    def _set(self, name: str, files: Files) -> Path:
        folder = self._folder / f"set-{name}"
        folder.mkdir(parents=True)
        for path, content in files.items():
            (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder
