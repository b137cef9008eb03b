"""New tokens of two text encoders: trained as an independent loop trains them, the same bits in company, and drawn alike by diffusers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from lorafleet.contract.run_manifest import Style
from lorafleet.errors import RunFailed
from tests.trainer.pack.test_new_tokens import exec_card
from tests.trainer.pack.test_pack_run import assert_same_bits
from tests.trainer.sdxl.reference import Reference
from tests.trainer.sdxl.styles import Sdxl
from tests.trainer.sdxl.test_training import assert_trained_alike, name_of
from trainer.adapters.layout import VECTORS
from trainer.engine import select_accelerator
from trainer.frozen_base import FrozenBase

pytestmark = pytest.mark.timeout(600)
RATE = 1e-3  # of the adapter too: the independent loop has one


class Grown(nn.Module):
    """A plain embedding with rows behind its own that train."""

    def __init__(self, known: nn.Embedding, begun: Tensor) -> None:
        super().__init__()
        self.known = known.weight.detach()
        self.register_parameter(VECTORS, nn.Parameter(begun))

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, torch.cat([self.known, self.get_parameter(VECTORS)]))


class WithTokens(Reference):
    """The independent loop, where transformers' own tokenizers and text encoders know the new token `<s1>`."""

    def __init__(self, base: Path, style: Any) -> None:
        super().__init__(base, style)
        (asked,) = style.spec.textual_inversion.tokens
        for part, encoder, tokenizer in zip(("text_encoder", "text_encoder_2"), self.texts, self.tokenizers, strict=True):
            known = encoder.get_input_embeddings()
            ids = tokenizer(asked.initial_text, add_special_tokens=False).input_ids
            assert tokenizer.add_tokens(["<s1>", "<s1>_1"]) == 2
            assert tokenizer.convert_tokens_to_ids("<s1>") == known.num_embeddings, "the new rows are behind the others"
            encoder.set_input_embeddings(Grown(known, known.weight.detach()[ids].clone()))
            self.adapted[part] = encoder
        self.texts[1].text_model.eos_token_id = self.tokenizers[1].eos_token_id  # its config's, 2, would be where the highest id is

    def encode(self, captions: Any) -> tuple[Tensor, Tensor]:
        return super().encode([caption.replace("<s1>", "<s1> <s1>_1") for caption in captions])


class SdxlWithTokens(Sdxl):
    def reference(self, style: Style) -> Reference:
        return WithTokens(Path(style.spec.base_model.uri.removeprefix("file://")), self.ready(style))


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory, group: Any, bases: dict[str, Path], data_set: Path) -> SdxlWithTokens:
    return SdxlWithTokens(tmp_path_factory.mktemp("sdxl-tokens"), group, bases, data_set)


def parts(token: str = "<s1>", *, steps: int = 2, text: str = "red round", **inversion: Any) -> dict[str, dict[str, Any]]:
    asked = {"token": token, "num_vectors": 2, "initial_text": text}
    return {
        "dataset": {"trigger_phrase": token},
        "textual_inversion": {"tokens": [asked], "learning_rate": RATE, "train_fraction": 1.0, **inversion},
        "training": {"max_steps": steps, "learning_rate": RATE},
    }


def test_ten_steps_are_those_of_an_independent_loop(sdxl: Sdxl):
    style = sdxl.style("ten", **parts(steps=10))
    assert sdxl.train(style).endings == {style.job: "succeeded"}
    assert_trained_alike(sdxl, style)


def test_in_company_each_has_the_bits_that_it_has_alone(sdxl: Sdxl):
    given: dict[str, dict[str, dict[str, Any]]] = {
        "leaves": parts("<s2>", steps=1, keep_deviation=True),  # its slot is another's then
        "stays": parts("<s1>", text=""),
        "plain": {"training": {"max_steps": 2}},
    }
    company = [sdxl.style(name, **each) for name, each in given.items()]
    assert set(sdxl.train(*company).endings.values()) == {"succeeded"}
    for name, each in given.items():
        sdxl.train(sdxl.style(f"{name}-apart", **each), batch_invariant=True)
        assert_same_bits(sdxl.saved(name), sdxl.saved(f"{name}-apart"))


def test_the_base_has_its_own_embeddings_again_afterwards_with_no_number_changed(sdxl: Sdxl):
    style = sdxl.ready(sdxl.style("frozen", **parts(alone=True)))
    base = FrozenBase(style.base, "fp32", select_accelerator(style.spec.cluster))
    base.load(trains_text=True)
    encoders: list[Any] = [base.parts["text_encoder"], base.parts["text_encoder_2"]]
    embeddings = [encoder.get_input_embeddings() for encoder in encoders]
    before = [each.weight.detach().clone() for each in embeddings]
    sdxl.run([style], base=base).train()
    assert {name.rpartition(".")[2] for name in sdxl.adapter("frozen")} == {VECTORS}
    assert [encoder.get_input_embeddings() for encoder in encoders] == embeddings
    assert all(torch.equal(each.weight, weight) for each, weight in zip(embeddings, before, strict=True))


def test_a_token_of_the_bases_vocabulary_fails_its_own_style_alone(sdxl: Sdxl):
    taken, fine = sdxl.style("taken", **parts("red")), sdxl.style("fine", **parts(steps=1))
    endings = sdxl.train(taken, fine).endings
    failed = endings[taken.job]
    assert isinstance(failed, RunFailed)
    assert (failed.reason, endings[fine.job]) == ("TOKEN_NOT_USABLE", "succeeded")


def test_files_draw_in_diffusers_what_was_drawn_here(sdxl: Sdxl, bases: dict[str, Path]):
    prompt = "a plain <s1> thing"
    drawn = {"prompts": [prompt], "num_inference_steps": 2, "guidance_scale": 2.0}
    # At this rate two steps are seen in the pictures.
    style = sdxl.style("drawn", **parts(learning_rate=0.3), validation=drawn, output={"precision": "fp32"})
    assert sdxl.train(style).endings == {style.job: "succeeded"}
    folder = sdxl.folder / name_of(style) / "adapter"
    assert set(load_file(folder / "embeddings/s1.safetensors")) == {"clip_l", "clip_g"}
    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(bases["epsilon"], add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    without = _picture(pipeline, prompt)
    exec_card(folder, pipeline)
    ours = np.asarray(Image.open(folder / "samples" / "000.png"), dtype=np.int16)
    assert np.abs(ours - _picture(pipeline, prompt)).max() <= 2
    assert np.abs(ours - without).max() > 8


def _picture(pipeline: Any, prompt: str) -> "np.ndarray[Any, Any]":
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = pipeline(prompt, generator=generator, num_inference_steps=2, guidance_scale=2.0, width=64, height=64)
    return np.asarray(drawn.images[0], dtype=np.int16)


def test_beginnings_that_are_subtracted_leave_tokens_as_they_are(sdxl: Sdxl):
    style = sdxl.style("pissa", **parts(steps=1), adapter={"initialization": "pissa", "rank": 1})
    plain = sdxl.style("kaiming", **parts(steps=1), adapter={"rank": 1})
    assert set(sdxl.train(style, plain).endings.values()) == {"succeeded"}
    kept = load_file(sdxl.folder / "pissa/adapter/embeddings/s1.safetensors")
    other = load_file(sdxl.folder / "kaiming/adapter/embeddings/s1.safetensors")
    assert all(torch.allclose(kept[key], other[key], atol=2 * RATE) and bool(kept[key].any()) for key in kept)
