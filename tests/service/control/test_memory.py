"""The memory model counts adapters exactly, and never promises room that a pack has not."""

from dataclasses import replace
from itertools import pairwise

import pytest

from lorafleet.catalog.registry import EXTENSIONS_ENV
from lorafleet.spec_overrides import OverrideSpec
from service.control.memory import GIB, Ask, BaseShapes, adapter_bytes, arithmetic, footprint, pack_bytes

LAYERS = {"down.0.attn1.to_q": (64, 32), "down.0.attn1.to_out.0": (32, 64), "mid.conv1": (16, 8, 3, 3), "time.linear": (4, 4)}
# Stable Diffusion 1.5, as its headers tell.
SD15 = BaseShapes(layers=LAYERS, num_params=859_520_964, num_other_params=206_713_975, width=320, latent_side=64, pixels_per_latent=8)


def ask(**changes) -> Ask:
    fields = {"family": "sd1", "precision": "fp32", "method": "lora", "rank": 8, "target_modules": ("to_q",), "resolution": None}
    return Ask(**{**fields, "micro_batch_size": 1, **changes})


ADAMW = 4 + 4 + 8  # bytes for each parameter: weight, gradient and two moments


def of_adapter(base: BaseShapes = SD15, **changes) -> float:
    """Its parameters, by the bytes that AdamW takes for each."""
    return adapter_bytes(base, ask(**changes)) / ADAMW


def test_a_linear_layer_takes_rank_times_in_plus_out():
    assert of_adapter() == 8 * (32 + 64)


def test_a_convolution_takes_the_kernel_once():
    assert of_adapter(target_modules=("conv1",), rank=4) == 4 * (8 * 3 * 3 + 16)


def test_names_match_whole_parts_of_a_path_as_peft_matches_them():
    assert of_adapter(target_modules=("q",)) == 0
    assert of_adapter(target_modules=("to_out.0", "to_q")) == 2 * 8 * (32 + 64)


def test_dora_adds_a_magnitude_for_each_output():
    assert of_adapter(method="dora") == 8 * (32 + 64) + 64


def test_adapters_on_text_encoders_count_where_they_are_trained():
    base = replace(SD15, text_layers={"text_encoder": {"layers.0.self_attn.q_proj": (8, 8), "layers.0.mlp.fc1": (32, 8)}})
    assert of_adapter(base) == of_adapter()
    assert of_adapter(base, text_encoder=True) == of_adapter() + 8 * (8 + 8)


def test_an_optimizers_state_is_what_its_facts_say(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(EXTENSIONS_ENV, "tests.lorafleet.extension")
    assert adapter_bytes(SD15, ask(optimizer="whole")) == 2 * 4 * 8 * (32 + 64) + 4 * (8 + 32) + 4 * (64 + 8)


def test_layers_with_a_rank_of_their_own_count_by_it():
    own = (OverrideSpec(pattern="to_q", rank=3),)
    assert of_adapter(target_modules=("to_out.0", "to_q"), overrides=own) == (8 + 3) * (32 + 64)
    assert footprint(SD15, ask(target_modules=("to_out.0", "to_q"), overrides=own)).num_adapter_params == (8 + 3) * (32 + 64)


def test_a_moving_average_is_a_number_more_for_each():
    assert adapter_bytes(SD15, ask(keeps_average=True)) == (ADAMW + 4) * 8 * (32 + 64)


def test_rows_and_area_count_linearly():
    one, four = footprint(SD15, ask()), footprint(SD15, ask(micro_batch_size=4))
    assert four.activation_bytes == 4 * one.activation_bytes
    assert footprint(SD15, ask(resolution=1024)).activation_bytes == 4 * one.activation_bytes
    assert footprint(SD15, ask(resolution=512)) == one, "unset is the base's own"


def test_of_a_base_that_does_not_say_its_size_the_familys_is_taken():
    silent = replace(SD15, latent_side=None)
    assert footprint(silent, ask()) is None, "Stable Diffusion's bases say it"
    assert footprint(silent, ask(family="flux")) == footprint(silent, ask(family="flux", resolution=1024))
    assert footprint(replace(SD15, latent_side=64), ask(family="flux")) == footprint(silent, ask(family="flux", resolution=512))


def test_bf16_halves_the_denoiser_alone():
    fp32, bf16 = footprint(SD15, ask()), footprint(SD15, ask(precision="bf16"))
    assert fp32.base_bytes - bf16.base_bytes == 2 * SD15.num_params


@pytest.mark.parametrize(("precision", "number_bytes"), [("fp32", 4), ("bf16", 2), ("nf4", 2)])
def test_large_text_encoders_count_as_they_are_loaded(precision: str, number_bytes: int):
    with_large = replace(SD15, num_large_params=4_700_000_000)
    more = footprint(with_large, ask(precision=precision)).base_bytes - footprint(SD15, ask(precision=precision)).base_bytes
    assert more == number_bytes * 4_700_000_000


@pytest.mark.parametrize(("text_precision", "layer_bytes"), [("bf16", 2), ("int8", 1 + 2 / 1024)])
def test_quantised_text_encoders_count_by_their_layers(text_precision: str, layer_bytes: float):
    """Of T5 one layer of a block, of 1024 x 1024, and as many numbers that stand alone."""
    numbers = 1024 * 1024
    layers = {"text_encoder_2": {"encoder.block.0.layer.0.SelfAttention.q": (1024, 1024), "shared": (1024, 1024)}}
    base = replace(SD15, latent_side=64, num_large_params=2 * numbers, text_layers=layers)
    asked = {"family": "flux", "precision": "nf4", "text_precision": text_precision}
    more = footprint(base, ask(**asked)).base_bytes - footprint(replace(base, num_large_params=0, text_layers={}), ask(**asked)).base_bytes
    assert more == 2 * numbers + layer_bytes * numbers


def test_the_estimate_is_above_what_autograd_keeps():
    """118 million values for one picture at 256 x 256 with adapters on every layer, counted on meta tensors."""
    kept = footprint(SD15, ask(resolution=256)).activation_bytes
    assert 118_369_825 * 4 < kept < 1.1 * 118_369_825 * 4


def test_the_estimate_of_sdxl_is_above_what_autograd_keeps():
    """3,457 million values for one picture at 1024 x 1024 with adapters on every layer, counted on meta tensors."""
    base = replace(SD15, latent_side=128)
    kept = footprint(base, ask(family="sdxl")).activation_bytes
    assert 3_457_000_000 * 4 < kept < 1.1 * 3_457_000_000 * 4


def test_text_takes_its_share_however_small_the_pictures():
    """FLUX.1's 512 tokens are as many as a picture of 512 x 512 has half of."""
    large, small = (footprint(replace(SD15, latent_side=side), ask(family="flux")).activation_bytes for side in (128, 64))
    assert large / small == (128 * 128 + 2048) / (64 * 64 + 2048)


@pytest.mark.parametrize(("family", "least"), [("sd1", 4), ("sdxl", 9), ("flux", 13)])
def test_recomputed_blocks_leave_a_fraction_of_the_activations(family: str, least: int):
    kept, recomputed = (footprint(SD15, ask(family=family, recomputes=recomputes)) for recomputes in (False, True))
    assert kept.activation_bytes > least * recomputed.activation_bytes
    assert replace(kept, activation_bytes=0) == replace(recomputed, activation_bytes=0)


def test_the_cache_keeps_latents_whole_and_large_texts_as_they_are_computed():
    """Z-Image's 512 states of 2560, and which of them are there."""
    base = replace(SD15, latent_side=None)
    fp32, bf16 = (footprint(base, ask(family="zimage", precision=precision)) for precision in ("fp32", "bf16"))
    assert fp32.picture_bytes == bf16.picture_bytes == 16 * 128 * 128 * 4
    assert (fp32.caption_bytes, bf16.caption_bytes) == (512 * 2560 * 4 + 512 * 4, 512 * 2560 * 2 + 512 * 4)


def test_the_cache_keeps_twice_as_much_of_latents_that_are_sampled():
    once, twice = (footprint(SD15, ask(samples_latents=sampled)) for sampled in (False, True))
    assert twice.picture_bytes == 2 * once.picture_bytes
    assert replace(twice, picture_bytes=once.picture_bytes) == once


def test_the_cache_keeps_a_picture_at_every_resolution():
    of = {asked: footprint(SD15, ask(resolution=asked)).picture_bytes for asked in (512, 768)}
    assert footprint(SD15, ask(resolution=768, smaller_resolutions=(512,))).picture_bytes == of[512] + of[768]


def test_the_base_is_counted_once_and_every_style_adds_the_same():
    one = footprint(SD15, ask())
    sizes = [pack_bytes([one] * count) for count in range(1, 5)]
    assert {after - before for before, after in pairwise(sizes)} == {one.own_bytes}
    assert sizes[0] == one.shared_bytes + one.own_bytes


def test_a_style_alone_in_its_bank_brings_as_many_idle_rows_as_it_has():
    lora, other, loha = (footprint(SD15, ask(method=method, bank=method)) for method in ("lora", "lora", "loha"))
    own = lora.shared_bytes + lora.own_bytes + other.own_bytes + loha.own_bytes
    assert pack_bytes([lora, other, loha]) == own + loha.activation_bytes
    assert pack_bytes([loha]) == loha.shared_bytes + loha.own_bytes, "whoever trains alone is paired with nobody"
    assert " + of 1 idle rows " in arithmetic([lora, other, loha])
    assert "idle" not in arithmetic([lora, other])


def test_a_beginning_that_is_subtracted_is_kept_and_both_are_sides_of_twice_the_rank():
    numbers = 8 * (32 + 64)
    assert adapter_bytes(SD15, ask(subtracts=True)) == (ADAMW + 4 + 4 + 2 * 4) * numbers


def test_people_can_add_it_up():
    pack = [footprint(SD15, ask())] * 3
    told = arithmetic(pack)
    assert told.startswith("base 4.0 GiB + 3 adapters ")
    assert told.endswith(f"= {pack_bytes(pack) / GIB:.1f} GiB")
    assert "activations of 3 pictures" in told
    assert "process 0.90 GiB" in told


def test_loha_makes_an_update_of_rank_squared_of_its_tensors_for_each_pass():
    made = 8**2 * (32 + 64)
    assert adapter_bytes(SD15, ask(method="loha")) == ADAMW * 2 * 8 * (32 + 64) + 4 * made
    both = ask(method="loha", target_modules=("to_q", "to_out.0"))
    apart = replace(SD15, layers={"up.0.attn1.to_q": (64, 32), "up.1.attn1.to_out.0": (32, 64)})
    kept, recomputed = (adapter_bytes(apart, replace(both, recomputes=recomputes)) for recomputes in (False, True))
    assert kept - recomputed == 4 * made, "of one block alone"


def test_lokr_is_as_small_as_its_factor_says_and_keeps_more_activations():
    assert of_adapter(method="lokr", rank=1) == 8 * 4 + 8 + 8  # 64 is 8 by 8, 32 is 4 by 8
    assert of_adapter(method="lokr", rank=1, factor=2) == 2 * 2 + 32 + 16
    lora, lokr = (footprint(SD15, ask(method=method)) for method in ("lora", "lokr"))
    assert lora is not None
    assert lokr is not None
    assert lokr.activation_bytes > 1.3 * lora.activation_bytes
