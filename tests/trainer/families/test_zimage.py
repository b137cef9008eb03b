"""Z-Image row by row is what the library's lists are; its texts are a chat's, and no program of the base's is run for them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lorafleet.errors import RunFailed
from service.planning.base_shapes import read_shapes
from service.store.client import Store
from service.untrusted.parsing import Parser
from tests.trainer.families.styles import Families
from tests.trainer.families.zimage import MAX_TOKENS, TEXT_WIDTH
from trainer.families.zimage import FAMILY
from trainer.frozen_base import FrozenBase

pytestmark = pytest.mark.timeout(300)
MAX_SIDE = 192  # pixels: 24 patches of 2 latents of 4 pixels
CAPTIONS = ["", "red round thing", "a tall wide plain square thing on a plain round thing, " * 4]


@pytest.fixture
def packs(families: Callable[[str], Families]) -> Families:
    return families("zimage")


@pytest.fixture
def parts(packs: Families) -> Any:
    return FrozenBase(packs.ready(packs.style("parts")).base, "fp32", torch.device("cpu")).for_encoding()


@pytest.fixture
def copy(packs: Families, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packs.bases["turbo"], tmp_path / "base"))


def refusal(packs: Families, base: Path, **dataset: object) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        packs.ready(packs.style_on(base, "refused", dataset=dataset))
    assert not caught.value.retryable
    return caught.value


def predicted(parts: Any, captions: list[str], shape: tuple[int, int] = (12, 20)) -> torch.Tensor:
    draws = torch.Generator().manual_seed(1)
    noisy = torch.randn(len(captions), 4, *shape, generator=draws)
    with torch.no_grad():
        return FAMILY.predict(parts, noisy, torch.tensor([100.0, 500.0, 900.0]), FAMILY.encode_text(parts, captions))


@pytest.mark.parametrize("shape", [(12, 20), (16, 16)], ids=["filled-up", "whole"])
def test_rows_are_what_the_librarys_lists_are(packs: Families, parts: Any, shape: tuple[int, int]):
    """With texts of none, some and too many tokens; of 60 tokens of a picture, which are filled up to 64, and of 64."""
    pipeline = packs.row.pipeline.from_pretrained(packs.bases["turbo"])
    draws = torch.Generator().manual_seed(1)
    noisy = torch.randn(3, 4, 1, *shape, generator=draws)
    with torch.no_grad():
        texts, _ = pipeline.encode_prompt(list(CAPTIONS), "cpu", do_classifier_free_guidance=False, max_sequence_length=MAX_TOKENS)
        done = torch.tensor([0.9, 0.5, 0.1])
        expected = -torch.stack(pipeline.transformer(list(noisy), done, texts, return_dict=False)[0]).squeeze(2)
    assert [len(text) for text in texts][-1] == MAX_TOKENS, "the longest is cut"
    assert torch.allclose(predicted(parts, CAPTIONS, shape), expected, atol=1e-5)


def test_a_rows_bits_do_not_depend_on_how_long_its_neighbours_texts_are(parts: Any):
    beside_short, beside_long = predicted(parts, ["red thing", "", "a"]), predicted(parts, ["red thing", CAPTIONS[2], CAPTIONS[2]])
    assert torch.equal(beside_short[0], beside_long[0])


def test_texts_lie_at_the_beginning_and_what_is_none_is_zero(parts: Any):
    text = FAMILY.encode_text(parts, CAPTIONS)
    lengths = text["present"].sum(1).long().tolist()
    assert text["text"].shape == (3, MAX_TOKENS, TEXT_WIDTH)
    assert lengths == [min(number, MAX_TOKENS) for number in FAMILY.num_tokens(parts, CAPTIONS)]
    for row, length in enumerate(lengths):
        assert text["present"][row, :length].all()
        assert not text["text"][row, length:].any()
        assert text["text"][row, :length].any(dim=-1).all()


def test_the_template_of_a_base_is_not_run(packs: Families, copy: Path):
    path = copy / "tokenizer" / "chat_template.jinja"
    assert path.exists()
    path.write_text("{{ raise_exception('ran') }}")
    parts = FrozenBase(packs.ready(packs.style_on(copy, "another-template")).base, "fp32", torch.device("cpu")).for_encoding()
    usual = FrozenBase(packs.ready(packs.style("usual-template")).base, "fp32", torch.device("cpu")).for_encoding()
    assert torch.equal(FAMILY.encode_text(parts, CAPTIONS)["text"], FAMILY.encode_text(usual, CAPTIONS)["text"])
    asked = [{"role": "user", "content": "red"}]
    told = [each["tokenizer"].apply_chat_template(asked, tokenize=False, add_generation_prompt=True) for each in (parts, usual)]
    assert told[0] == told[1] == "<|im_start|>user\nred<|im_end|>\n<|im_start|>assistant\n"


def test_a_resolution_beyond_its_places_is_refused_with_the_most(packs: Families):
    error = refusal(packs, packs.bases["turbo"], resolution=MAX_SIDE + 8)
    assert error.reason == "INVALID_SPEC"
    assert f"at most {MAX_SIDE}" in error.message


async def test_the_planner_reads_its_shapes(packs: Families):
    shapes = await read_shapes(Store(), f"file://{packs.bases['turbo']}", Parser(), FAMILY.facts)
    assert (shapes.width, shapes.pixels_per_latent) == (48, 4)
    assert "layers.1.attention.to_q" in shapes.layers
