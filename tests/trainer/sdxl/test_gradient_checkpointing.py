"""Gradient checkpointing changes no bit: losses, adapters and moments of Stable Diffusion XL, in packs, resumed."""

from typing import Any

import pytest

from tests.trainer import recomputing
from tests.trainer.sdxl.styles import Sdxl

pytestmark = pytest.mark.timeout(600)
CONVOLUTIONS = {"adapter": {"target_modules": ["to_q", "to_v", "conv1", "proj_in"]}}


def test_recomputed_blocks_change_no_bit_of_a_pack(sdxl: Sdxl, monkeypatch: pytest.MonkeyPatch):
    recomputing.assert_same_in_a_pack(sdxl, sdxl.style, monkeypatch, **CONVOLUTIONS)


def test_a_warm_base_is_left_as_it_was(sdxl: Sdxl):
    run = sdxl.pack(sdxl.style("leaves", training=recomputing.RECOMPUTES))
    unet: Any = run.model.get_submodule("unet")
    assert unet.is_gradient_checkpointing
    run.pack.strip()
    assert not unet.is_gradient_checkpointing


@pytest.mark.proof
def test_a_killed_run_with_recomputed_blocks_resumes_bit_for_bit(sdxl: Sdxl):
    """With the text encoders, whose adapters are no block's of the denoiser."""
    recomputing.assert_resumes(sdxl, sdxl.style, adapter={"text_encoder": True})
