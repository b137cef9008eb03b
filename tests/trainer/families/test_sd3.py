"""Stable Diffusion 3 as it comes: with T5 or without, in three sizes, and for pictures of no more than its places of patches."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

from lorafleet.catalog import FAMILIES
from lorafleet.catalog.families import sd3
from lorafleet.errors import RunFailed
from service.planning.base_shapes import read_shapes
from service.store.client import Store
from service.untrusted.parsing import Parser
from tests.trainer.families import real_adapter, words
from tests.trainer.families.published_mmdit import published
from tests.trainer.families.real import Real, every_linear
from tests.trainer.families.sd3 import leave_out_t5
from tests.trainer.families.styles import Families
from tests.trainer.prepare.test_base_model import edit
from trainer.families.sd3 import FAMILY
from trainer.frozen_base import FrozenBase

pytestmark = pytest.mark.timeout(300)
T5 = ("text_encoder_3", "tokenizer_3")
MAX_SIDE = 96  # pixels: 12 patches of 2 latents of 4 pixels


@pytest.fixture
def packs(families: Callable[[str], Families]) -> Families:
    return families("sd3")


@pytest.fixture
def copy(packs: Families, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packs.bases["sd3"], tmp_path / "base"))


def refusal(packs: Families, base: Path, **dataset: object) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        packs.ready(packs.style_on(base, "refused", dataset=dataset))
    assert not caught.value.retryable
    return caught.value


def test_a_base_may_be_without_t5(packs: Families):
    found = packs.ready(packs.style("found", "without-t5")).base
    assert found.absent == {*T5}
    assert found.facts.max_tokens == words.MAX_TOKENS
    assert not [path for path in found.files if path.startswith(T5)]
    parts = FrozenBase(found, "fp32", torch.device("cpu")).for_encoding()
    assert not parts.keys() & {*T5}
    assert FAMILY.encode_text(parts, ["red"]).keys() == {"clip", "pooled"}


def test_t5_that_the_index_leaves_out_is_not_read_although_it_is_there(packs: Families, copy: Path, tmp_path: Path):
    there = Path(shutil.copytree(copy, tmp_path / "there"))
    leave_out_t5(copy)
    shutil.copy(copy / "model_index.json", there / "model_index.json")
    without, with_files = (packs.ready(packs.style_on(base, "left-out")).base for base in (copy, there))
    assert with_files.digest == without.digest


@pytest.mark.parametrize("part", T5)
def test_t5_that_the_index_names_must_be_there(packs: Families, copy: Path, part: str):
    shutil.rmtree(copy / part)
    error = refusal(packs, copy)
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    assert f"{part}/" in error.message


@pytest.mark.parametrize("part", T5)
def test_t5_comes_with_its_tokenizer_or_not_at_all(packs: Families, copy: Path, part: str):
    edit(copy / "model_index.json", **{part: [None, None]})
    error = refusal(packs, copy)
    assert error.reason == "BASE_MODEL_UNSUPPORTED"
    assert "text_encoder_3 and tokenizer_3" in error.message


def test_what_is_not_optional_must_be_named(packs: Families, copy: Path):
    edit(copy / "model_index.json", text_encoder_2=[None, None])
    assert "has no text_encoder_2" in refusal(packs, copy).message


def test_a_resolution_beyond_its_places_is_refused_with_the_most(packs: Families):
    error = refusal(packs, packs.bases["sd3"], resolution=MAX_SIDE + 8)
    assert error.reason == "INVALID_SPEC"
    assert f"{MAX_SIDE + 8} pixels are more than this base takes along a side; at most {MAX_SIDE}" in error.message


def test_no_bucket_is_longer_than_its_places(packs: Families):
    style = packs.style("longest", dataset={"resolution": MAX_SIDE - 8, "aspect_ratio_bucketing": True})
    buckets = [crop.bucket for crop in packs.ready(style).crops]
    assert max(max(bucket.width, bucket.height) for bucket in buckets) == MAX_SIDE


@pytest.mark.parametrize(
    ("transformer", "architecture"),
    [
        ({"num_layers": 24}, "stable-diffusion-3-medium"),
        ({"num_layers": 24, "dual_attention_layers": [0, 1], "qk_norm": "rms_norm"}, "stable-diffusion-3-5-medium"),
        ({"num_layers": 38, "dual_attention_layers": [], "qk_norm": "rms_norm"}, "stable-diffusion-3-5-large"),
    ],
)
def test_files_say_which_of_the_three_they_are_for(transformer: dict[str, object], architecture: str):
    assert sd3.FACTS.label_of({"transformer": transformer}).architecture == architecture


@pytest.mark.parametrize("variant", ["sd3", "without-t5"])
async def test_the_planner_reads_its_shapes(packs: Families, variant: str):
    base = packs.bases[variant]
    shapes = await read_shapes(Store(), f"file://{base}", Parser(), FAMILIES.get("sd3"))
    index = json.loads((base / "model_index.json").read_text())
    assert (shapes.width, shapes.latent_side, shapes.pixels_per_latent) == (32, 16, 4)
    assert bool(shapes.text_layers["text_encoder_3"]) == (index["text_encoder_3"] != [None, None])


def test_the_names_of_35_mediums_second_attention_are_the_published_ones():
    """And its last block is another than large's: only of that one halves are exchanged."""
    config = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "dual_attention_layers": tuple(range(13))}
    medium = Real(built=SD3Transformer2DModel, config=config, latents=(16, 128, 128), conditioning={})
    weights, file = real_adapter.kohya_of(medium, "sd3", every_linear(medium))
    names = published(24, 13)
    assert {name.partition(".")[0] for name in file} == names.keys()
    for block, is_swapped in ((22, False), (23, True)):
        path = f"transformer.transformer_blocks.{block}.norm1_context.linear"
        found = real_adapter.read_update(file, f"lora_unet_joint_blocks_{block}_context_block_adaLN_modulation_1")
        ours = real_adapter.our_update(weights, path)
        assert torch.allclose(found, torch.cat(ours.chunk(2)[::-1]) if is_swapped else ours, rtol=0, atol=1e-6)


def test_the_card_of_an_adapter_says_how_its_base_is_opened_and_that_diffusers_reads_no_kohya_file(packs: Families):
    style = packs.style("card", "without-t5", training={"max_steps": 1})
    packs.train(style)
    card = packs.exported(style, "diffusers").with_name("README.md").read_text()
    assert 'from_pretrained("path/to/base", text_encoder_3=None, tokenizer_3=None)' in card
    alone = packs.style("card-kohya", training={"max_steps": 1}, output={"formats": ["kohya"]})
    packs.train(alone)
    assert "load_lora_weights" not in packs.exported(alone, "kohya").with_name("README.md").read_text()
