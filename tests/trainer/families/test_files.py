"""Files of every family load in diffusers and draw there what the trainer drew; kohya's are named and fused as published."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from lorafleet.contract.run_manifest import Style
from tests.trainer.families.row import Row, load_file
from tests.trainer.families.rows import ROWS
from tests.trainer.families.styles import RESOLUTION, Families
from trainer.adapters.formats.tensors import by_module
from trainer.adapters.layout import scaling
from trainer.adapters.methods import METHODS

pytestmark = pytest.mark.timeout(600)
Of = Callable[[str], Families]

PROMPTS: dict[str, Any] = {"prompts": ["red round thing 3", "a tall blue square", ""], "num_inference_steps": 3, "seed": 11}
STEPS = 3
MERGED = ("chroma", "flux", "flux2")  # families whose latents are compared with those of merged weights
MOST_APART, LATENTS_APART = 2, 1e-3  # of 255; of a latent


@pytest.fixture(scope="module", params=[name for name, row in ROWS.items() if row.draws_files])
def trained(request: pytest.FixtureRequest, families: Of) -> tuple[Families, Style]:
    """Every kind of layer, so far that a picture shows it."""
    packs = families(request.param)
    style = packs.style(
        "every-kind",
        adapter={"text_encoder": packs.row.has_text_adapters},
        training={"max_steps": STEPS, "learning_rate": 2e-2, "lr_scheduler": "constant"},
        validation={**PROMPTS, "guidance_scale": packs.row.guidance_scale},
        output={"precision": "fp32", "formats": list(packs.row.formats)},
    )
    assert packs.train(style).endings == {style.job: "succeeded"}
    return packs, style


def pipeline_of(packs: Families) -> Any:
    pipeline = packs.row.pipeline.from_pretrained(packs.bases[packs.row.variants[0]])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn(pipeline: Any, row: Row, output_type: str = "pil") -> list[np.ndarray]:
    found = [
        pipeline(
            **row.prompts(pipeline, prompt),
            width=RESOLUTION,
            height=RESOLUTION,
            generator=torch.Generator("cpu").manual_seed(PROMPTS["seed"] + index),
            num_inference_steps=PROMPTS["num_inference_steps"],
            guidance_scale=row.guidance_scale,
            output_type=output_type,
            **row.drawing,
        ).images[0]
        for index, prompt in enumerate(PROMPTS["prompts"])
    ]
    return [np.asarray(each.numpy() if isinstance(each, Tensor) else each, dtype=np.float64) for each in found]


def pictures(packs: Families, step: int) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(data)), dtype=np.float64) for data in packs.pictures("every-kind", step)]


def apart(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The most that a channel of a pixel differs by, of 255."""
    return max(float(abs(mine - other).max()) for mine, other in zip(ours, theirs, strict=True))


def loaded(packs: Families, style: Style, file_format: str) -> Any:
    pipeline, path = pipeline_of(packs), packs.exported(style, file_format)
    load = load_file if file_format == "diffusers" else packs.row.load_kohya
    assert load is not None
    load(pipeline, path)
    return pipeline


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping


def test_before_the_first_step_the_bases_own_pictures_are_drawn(trained: tuple[Families, Style]):
    packs, _ = trained
    assert apart(pictures(packs, 0), drawn(pipeline_of(packs), packs.row)) <= MOST_APART


@pytest.mark.parametrize("file_format", ["diffusers", "kohya"])
def test_a_file_draws_in_diffusers_what_the_trainer_drew(trained: tuple[Families, Style], file_format: str):
    packs, style = trained
    if file_format == "kohya" and packs.row.load_kohya is None:
        pytest.skip("diffusers reads no such file of this family")
    before = drawn(pipeline_of(packs), packs.row)
    ours = pictures(packs, STEPS)
    assert apart(ours, drawn(loaded(packs, style, file_format), packs.row)) <= MOST_APART
    assert apart(ours, before) > 8, "the adapter shows in no picture"


def test_both_files_give_the_same_latents(trained: tuple[Families, Style]):
    packs, style = trained
    if packs.row.load_kohya is None:
        pytest.skip("diffusers reads no such file of this family")
    by_format = [drawn(loaded(packs, style, each), packs.row, "latent") for each in ("diffusers", "kohya")]
    assert apart(*by_format) <= LATENTS_APART


def test_a_file_gives_the_latents_of_the_weights_that_were_trained(trained: tuple[Families, Style]):
    """The base with the adapter in its weights, as its method says."""
    packs, style = trained
    if packs.row.family not in MERGED:
        pytest.skip("compared by pictures alone")
    pipeline, adapter = pipeline_of(packs), style.spec.adapter
    for path, tensors in by_module(packs.adapter("every-kind"), adapter).items():
        part, _, module = path.partition(".")
        layer = getattr(pipeline, part).get_submodule(module)
        layer.weight.data = METHODS.get(adapter.method).merged(layer.weight.data, tensors, scaling(adapter))
    ours = drawn(pipeline, packs.row, "latent")
    assert apart(ours, drawn(loaded(packs, style, "diffusers"), packs.row, "latent")) <= LATENTS_APART
