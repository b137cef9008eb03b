"""Krea 2's texts are its pipeline's, its rows keep to themselves, and what its index says otherwise is refused."""

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
from tests.trainer.families.krea2 import MAX_TOKENS, TEXT_LAYERS, TEXT_WIDTH
from tests.trainer.families.styles import Families
from tests.trainer.prepare.test_base_model import edit
from trainer.families import krea2 as implementation
from trainer.families.krea2 import FAMILY, NUM_BEHIND
from trainer.families.qwen_image import CHAT, NUM_DROPPED
from trainer.frozen_base import FrozenBase

pytestmark = pytest.mark.timeout(300)
LONG = "a tall wide plain square thing on a plain round thing, " * 6
CAPTIONS = ["red", "", LONG]


@pytest.fixture
def packs(families: Callable[[str], Families]) -> Families:
    return families("krea2")


@pytest.fixture
def parts(packs: Families) -> Any:
    return FrozenBase(packs.ready(packs.style("parts")).base, "fp32", torch.device("cpu")).for_encoding()


def library(packs: Families) -> Any:
    return packs.row.pipeline.from_pretrained(packs.bases["raw"])


def test_the_question_around_a_prompt_is_the_pipelines(packs: Families):
    pipeline = library(packs)
    assert (pipeline.prompt_template_encode_prefix, pipeline.prompt_template_encode_suffix) == (CHAT.before, CHAT.behind)
    assert (pipeline.prompt_template_encode_start_idx, pipeline.prompt_template_encode_num_suffix_tokens) == (NUM_DROPPED, NUM_BEHIND)
    assert pipeline.text_encoder_select_layers == implementation.krea2.TEXT_LAYERS


def test_texts_are_those_of_the_pipeline_cut_where_it_cuts(packs: Families, parts: Any):
    with torch.no_grad():
        text = FAMILY.encode_text(parts, CAPTIONS)
        expected, present = library(packs).encode_prompt(CAPTIONS, "cpu", max_sequence_length=MAX_TOKENS)
    assert text["text"].shape == (3, MAX_TOKENS, TEXT_LAYERS, TEXT_WIDTH)
    assert torch.equal(text["present"] > 0, present)
    assert torch.allclose(text["text"], expected * present[..., None, None], atol=1e-5)
    lengths = text["present"].sum(1).long().tolist()
    assert lengths == [min(MAX_TOKENS, number) for number in FAMILY.num_tokens(parts, CAPTIONS)]


def test_rows_are_what_the_librarys_transformer_computes(packs: Families, parts: Any):
    noisy, times = torch.randn(3, 4, 12, 20, generator=torch.Generator().manual_seed(1)), torch.tensor([100.0, 500.0, 900.0])
    pipeline = library(packs)
    with torch.no_grad():
        text = FAMILY.encode_text(parts, CAPTIONS)
        found = FAMILY.predict(parts, noisy, times, text)
        tokens = pipeline.transformer(
            pipeline._pack_latents(noisy, 3, 4, 12, 20),
            encoder_hidden_states=text["text"],
            encoder_attention_mask=text["present"] > 0,
            timestep=times / 1000,
            position_ids=pipeline.prepare_position_ids(MAX_TOKENS, 6, 10, "cpu"),
        ).sample
    factor = pipeline.vae_scale_factor
    assert torch.allclose(found, pipeline._unpack_latents(tokens, 12 * factor, 20 * factor).squeeze(2), atol=1e-5)


def test_a_rows_bits_do_not_depend_on_how_long_its_neighbours_texts_are(parts: Any):
    def first(beside: str) -> torch.Tensor:
        noisy = torch.randn(2, 4, 12, 20, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            return FAMILY.predict(parts, noisy, torch.tensor([100.0, 900.0]), FAMILY.encode_text(parts, ["red thing", beside]))[0]

    assert torch.equal(first(""), first(LONG))


@pytest.mark.parametrize("setting", [{"text_encoder_select_layers": list(range(12))}, {"patch_size": 1}], ids=["layers", "patch_size"])
def test_other_settings_of_its_pipeline_are_refused(packs: Families, tmp_path: Path, setting: dict[str, Any]):
    base = Path(shutil.copytree(packs.bases["raw"], tmp_path / "base"))
    edit(base / "model_index.json", **setting)
    ready = packs.ready(packs.style_on(base, "another"))
    with pytest.raises(RunFailed, match=f"model_index.json says another {next(iter(setting))}") as caught:
        FrozenBase(ready.base, "fp32", torch.device("cpu")).load_part("transformer")
    assert (caught.value.reason, caught.value.retryable) == ("BASE_MODEL_UNUSABLE", False)


async def test_the_planner_reads_its_shapes(packs: Families):
    shapes = await read_shapes(Store(), f"file://{packs.bases['raw']}", Parser(), FAMILY.facts)
    assert (shapes.width, shapes.pixels_per_latent) == (32, 4)
    assert "transformer_blocks.1.attn.to_gate" in shapes.layers
