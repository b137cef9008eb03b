"""Qwen-Image's texts do not depend on their neighbours, its autoencoder is sized by another list, and it is guided for each prompt."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from service.planning.base_shapes import read_shapes
from service.store.client import Store
from service.untrusted.parsing import Parser
from tests.trainer.families.qwen_image import MAX_TOKENS, TEXT_WIDTH
from tests.trainer.families.styles import Families
from trainer.families.qwen_image import CHAT, FAMILY, NUM_DROPPED
from trainer.frozen_base import FrozenBase

pytestmark = pytest.mark.timeout(300)
LONG = "a tall wide plain square thing on a plain round thing, " * 6


@pytest.fixture
def packs(families: Callable[[str], Families]) -> Families:
    return families("qwen_image")


@pytest.fixture
def parts(packs: Families) -> Any:
    return FrozenBase(packs.ready(packs.style("parts")).base, "fp32", torch.device("cpu")).for_encoding()


def test_the_question_around_a_prompt_is_the_pipelines(packs: Families):
    pipeline = packs.row.pipeline.from_pretrained(packs.bases["qwen-image"])
    assert pipeline.prompt_template_encode.format("red") == CHAT.asked(["red"])[0]
    assert pipeline.prompt_template_encode_start_idx == NUM_DROPPED


def test_texts_are_those_of_the_pipeline_cut_where_it_cuts(packs: Families, parts: Any):
    pipeline = packs.row.pipeline.from_pretrained(packs.bases["qwen-image"])
    text = FAMILY.encode_text(parts, ["red", LONG])
    assert text["text"].shape == (2, MAX_TOKENS, TEXT_WIDTH)
    for row, caption in enumerate(["red", LONG]):
        with torch.no_grad():
            expected, _ = pipeline.encode_prompt([caption], "cpu", max_sequence_length=MAX_TOKENS)
        length = int(text["present"][row].sum())
        assert length == expected.shape[1] == min(MAX_TOKENS, FAMILY.num_tokens(parts, [caption])[0])
        assert torch.allclose(text["text"][row, :length], expected[0], atol=1e-5)
        assert not text["text"][row, length:].any()


def test_a_rows_bits_do_not_depend_on_how_long_its_neighbours_texts_are(parts: Any):
    def first(beside: str) -> torch.Tensor:
        noisy = torch.randn(2, 4, 12, 20, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            return FAMILY.predict(parts, noisy, torch.tensor([100.0, 900.0]), FAMILY.encode_text(parts, ["red thing", beside]))[0]

    assert torch.equal(first(""), first(LONG))


def test_adapters_on_qwen_are_refused(packs: Families):
    with pytest.raises(Exception, match="no reader loads adapters on Qwen2_5_VLForConditionalGeneration"):
        packs.style("text", adapter={"text_encoder": True})


async def test_the_planner_reads_its_shapes(packs: Families):
    shapes = await read_shapes(Store(), f"file://{packs.bases['qwen-image']}", Parser(), FAMILY.facts)
    assert (shapes.width, shapes.pixels_per_latent) == (32, 4)
    assert "transformer_blocks.1.attn.to_q" in shapes.layers
