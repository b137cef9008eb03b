"""Styles with new tokens: alone, with an adapter, in packs and after a resume. Their files draw in diffusers what was drawn here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from examples.demo import BASE_MODEL
from lorafleet.errors import RunFailed
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import Packs, job_of
from tests.trainer.test_artifact_files import committed
from trainer.adapters.layout import VECTORS
from trainer.group import Group

pytestmark = pytest.mark.timeout(300)
proof = pytest.mark.proof

NAME = f"text_encoder.embeddings.token_embedding.{VECTORS}"
SHORT: dict[str, Any] = {"max_steps": 3, "lr_scheduler": "constant"}


def tokens(*names: str, text: str = "red cat", **inversion: Any) -> dict[str, dict[str, Any]]:
    asked = [{"token": name, "num_vectors": 2, "initial_text": text} for name in names]
    return {
        "dataset": {"trigger_phrase": " ".join(names)},
        "textual_inversion": {"tokens": asked, "learning_rate": 1e-2, **inversion},
        "training": SHORT,
        "checkpointing": {"every_steps": 2},
    }


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("tokens"), group)


STYLES: dict[str, dict[str, Any]] = {
    "short": {**tokens("<s2>", text="blue dog", keep_deviation=True), "training": {**SHORT, "max_steps": 1}},  # its slot is another's then
    "whole": {**tokens("<s1>", train_fraction=1.0), "training": {**SHORT, "max_steps": 2}},
    "alone": tokens("<s1>", text="", alone=True),
    "plain": {"training": {**SHORT, "caption_dropout": 0.5}},
}


@proof
@pytest.mark.parametrize("names", [("short", "whole"), ("alone", "plain", "whole")], ids="-".join)
def test_in_one_pack_each_is_what_it_is_alone(packs: Packs, names: tuple[str, ...]):
    within = {name: f"{name}-of-{len(names)}" for name in names}
    company = [packs.style(within[name], **STYLES[name]) for name in names]
    assert set(packs.train(*company).endings.values()) == {"succeeded"}
    for name in names:
        packs.train(packs.style(f"{within[name]}-apart", **STYLES[name]), batch_invariant=True)
        assert_same_bits(packs.saved(within[name]), packs.saved(f"{within[name]}-apart"))
        assert (NAME in packs.adapter(within[name])) == (name != "plain")


@proof
def test_a_killed_run_resumes_bit_for_bit(packs: Packs):
    parts = tokens("<s1>")
    parts["training"] = {**SHORT, "max_steps": 4, "ema_decay": 0.9}
    packs.alone("straight", **parts)
    with pytest.raises(Killed):
        packs.train(packs.style("killed", **parts), recorder=dies_at(job_of("killed"), 3))
    resumed = packs.alone("killed", **parts)
    assert resumed.resumed_from == {job_of("killed"): 2}
    assert_same_bits(packs.saved("straight"), packs.saved("killed"))


@proof
def test_tokens_stay_as_they_are_once_their_share_of_the_steps_is_done(packs: Packs):
    short, longer = tokens("<s1>", train_fraction=1.0), tokens("<s1>", train_fraction=0.5)
    short["training"], longer["training"] = {**SHORT, "max_steps": 2}, {**SHORT, "max_steps": 4}
    packs.alone("two", **short)
    packs.alone("two-of-four", **longer)
    two, four = packs.adapter("two"), packs.adapter("two-of-four")
    assert torch.equal(two[NAME], four[NAME])
    assert not any(torch.equal(two[name], four[name]) for name in two if name != NAME)


# What is made of it


@pytest.mark.proof  # SDXL's are drawn in make test
def test_files_draw_in_diffusers_what_was_drawn_here(packs: Packs):
    parts = tokens("<s1>", "my-cat", train_fraction=1.0)
    parts["training"] = {**SHORT, "max_steps": 1}
    parts["dataset"]["validation_fraction"] = 0.0
    parts["textual_inversion"]["learning_rate"] = 0.1  # one step is seen
    prompt = "a <s1> my-cat in the red"
    drawn = {"prompts": [prompt], "num_inference_steps": 2, "guidance_scale": 3.0}
    assert packs.alone("drawn", **parts, validation=drawn, output={"precision": "fp32"}).endings == {job_of("drawn"): "succeeded"}
    folder = packs.folder / "drawn" / "adapter"
    pipeline: Any = StableDiffusionPipeline.from_pretrained(BASE_MODEL, dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    without = picture(pipeline, prompt)
    exec_card(folder, pipeline)
    theirs = picture(pipeline, prompt)
    ours = np.asarray(Image.open(folder / "samples" / "000.png"), dtype=np.int16)
    assert np.abs(ours - theirs).max() <= 2
    assert np.abs(ours - without).max() > 8


def picture(pipeline: Any, prompt: str) -> "np.ndarray[Any, Any]":
    generator = torch.Generator("cpu").manual_seed(0)
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    drawn = pipeline(prompt, generator=generator, num_inference_steps=2, guidance_scale=3.0, width=side, height=side)
    return np.asarray(drawn.images[0], dtype=np.int16)


def exec_card(folder: Path, pipeline: Any) -> None:
    """What the card says of loading, after the pipeline was made."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(folder))
    lines = [line for line in code.splitlines() if not line.startswith(("from diffusers", "pipeline = "))]
    exec("\n".join(lines), {"pipeline": pipeline})


def test_an_artifact_of_tokens_alone_has_their_files_and_no_adapter(packs: Packs):
    vectors = torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    folder = committed(packs, "only", {NAME: vectors}, **tokens("<s1>", "<s2>", alone=True))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {name for name in manifest["files"] if name.endswith(".safetensors")} == {
        "embeddings/s1.safetensors",
        "embeddings/s2.safetensors",
    }
    assert manifest["tokens"][0] == {"token": "<s1>", "num_vectors": 2, "file": "embeddings/s1.safetensors"}
    found: list[Tensor] = []
    for name, token in (("s1", "<s1>"), ("s2", "<s2>")):
        with safe_open(folder / f"embeddings/{name}.safetensors", "pt") as file:
            assert list(file.keys()) == [token]
            assert file.metadata()["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
            found.append(file.get_tensor(token))
    assert torch.equal(torch.cat(found), vectors.half())
    card = (folder / "README.md").read_text()
    assert "load_lora_weights" not in card
    assert "| adapter |" not in card
    assert "| new tokens | `<s1>`, vectors: 2, `<s2>`, vectors: 2; trained for 3 steps |" in card


# What cannot be


def test_a_token_that_no_caption_has_is_refused_before_anything_trains(packs: Packs):
    parts = tokens("<s1>", "<s2>")
    parts["dataset"] = {"trigger_phrase": "<s2>"}
    with pytest.raises(RunFailed, match=r'tokens\[0\].token: "<s1>" is in no caption') as error:
        packs.ready(packs.style("unused", **parts))
    assert error.value.reason == "TOKEN_NOT_USED"


def test_more_vectors_than_the_bases_captions_hold_are_refused(packs: Packs):
    parts = tokens("<s1>")
    parts["textual_inversion"]["tokens"][0]["num_vectors"] = 23
    with pytest.raises(RunFailed, match="23 vectors in all do not fit into the 22 tokens"):
        packs.ready(packs.style("wide", **parts))
