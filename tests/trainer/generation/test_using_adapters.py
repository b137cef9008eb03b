"""The Python of docs/using-adapters.md runs as it is written, with files of ours."""

import re
from pathlib import Path

import pytest
from PIL import Image

from examples.demo import BASE_MODEL
from tests.trainer.generation import made
from tests.trainer.generation.conftest import Loaded

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "using-adapters.md"
BLOCKS = re.findall(r"^```py\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_python_of_the_document_draws(block: str, emoji: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").symlink_to(BASE_MODEL)
    layers = {path: layer for path, layer in made.some(emoji.sampler.layers).items() if path.startswith("unet")}
    for seed, name in enumerate(("sepia", "ink")):
        made.file(tmp_path, name, made.on(layers, "lora", 100 * seed, rank=4 + seed))
    exec(compile(block, str(DOCUMENT), "exec"), {})
    (picture,) = tmp_path.glob("*.png")
    assert Image.open(picture).size == (64, 64)
