"""A sampler on the demo's base, loaded once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.demo import BASE_MODEL
from lorafleet import generation_spec
from tests.trainer.generation import made
from trainer.generation import request as requests
from trainer.generation.sampler import Sampler
from trainer.prepare.base_model import BaseModel


@dataclass(frozen=True)
class Loaded:
    base: BaseModel
    sampler: Sampler
    adapters: Path  # a folder of small files: lora, other (another rank), dora


def loaded(base_folder: Path, files: Path, format: str = "kohya", ends: Sequence[str] = made.ENDS) -> Loaded:
    base = requests.inspect(generation_spec.parse({"base_model": {"uri": base_folder.absolute().as_uri()}, "prompts": ["a thing"]}))
    sampler = requests.sampler(base, device="cpu")
    layers = made.some(sampler.layers, ends)
    methods = (("lora", "lora", format), ("other", "lora", format), ("dora", "dora", "diffusers"))  # diffusers reads no DoRA of kohya's
    for number, (name, method, written) in enumerate(methods):
        its = {path: layer for path, layer in layers.items() if written == "kohya" or not path.startswith("text")}
        made.file(files, name, made.on(its, method, 100 * number, rank=4 + number, family=base.family), written)
    return Loaded(base, sampler, files)


@pytest.fixture(scope="session")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORAFLEET_NODE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield loaded(BASE_MODEL, tmp_path_factory.mktemp("adapters"))
