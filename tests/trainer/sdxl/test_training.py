"""SDXL trains as an independent loop of diffusers, PEFT and torch does for the same draws: losses, adapters; alone and in packs."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lorafleet.contract.run_manifest import Style
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import job_of
from tests.trainer.sdxl.reference import Reference, change, relative, text_outputs
from tests.trainer.sdxl.styles import Sdxl

pytestmark = pytest.mark.timeout(600)
proof = pytest.mark.proof

OBJECTIVES = ("epsilon", "v_zero_snr")
LOSS = 1e-5
ADAPTER = 1e-5  # of its norm
CHANGE = 3e-4  # of what training added: Adam turns a gradient that is nearly nothing into a whole step


def name_of(style: Style) -> str:
    return style.job.rpartition("/")[2]


def assert_trained_alike(sdxl: Sdxl, style: Style) -> None:
    """As the independent loop trains it."""
    name, expected = name_of(style), sdxl.independently(style)
    assert sdxl.losses(name) == pytest.approx(expected.losses, rel=LOSS)
    assert sdxl.held_out(style) == pytest.approx(expected.held_out, rel=LOSS)
    ours = sdxl.adapter(name)
    assert ours.keys() == expected.adapter.keys()
    assert relative(ours, expected.adapter) < ADAPTER
    learned = {tensor_name: tensor - expected.initial[tensor_name] for tensor_name, tensor in ours.items()}
    assert relative(learned, change(expected)) < CHANGE


@pytest.mark.parametrize(
    ("objective", "text_encoder"),
    [
        ("epsilon", True),
        ("v_zero_snr", False),
        pytest.param("epsilon", False, marks=proof),
        pytest.param("v_zero_snr", True, marks=proof),
    ],
)
def test_one_step_is_that_of_an_independent_loop(sdxl: Sdxl, objective: str, text_encoder: bool):
    name = f"one-{objective}-{text_encoder}"
    style = sdxl.style(name, objective, training={"max_steps": 1, "micro_batch_size": 4}, adapter={"text_encoder": text_encoder})
    assert sdxl.train(style).endings == {style.job: "succeeded"}
    assert_trained_alike(sdxl, style)


@proof
@pytest.mark.parametrize("text_encoder", [False, True], ids=["unet", "text"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_twenty_steps_are_those_of_an_independent_loop(sdxl: Sdxl, objective: str, text_encoder: bool):
    name = f"twenty-{objective}-{text_encoder}"
    style = sdxl.style(name, objective, adapter={"text_encoder": text_encoder})
    assert sdxl.train(style).endings == {style.job: "succeeded"}
    assert_trained_alike(sdxl, style)


def company(sdxl: Sdxl, prefix: str, objective: str, steps: int) -> list[Style]:
    """Four styles that differ in what may differ inside a pack."""
    different: list[dict[str, dict[str, Any]]] = [
        {"training": {"seed": 1}},
        {"training": {"seed": 2, "micro_batch_size": 3, "learning_rate": 3e-4, "min_snr_gamma": 5.0}},
        {"training": {"seed": 3, "lr_scheduler": "linear", "lr_warmup_steps": 1, "max_grad_norm": 0.05}, "adapter": {"rank": 3}},
        {"training": {"seed": 4, "gradient_accumulation_steps": 2, "caption_dropout": 0.5, "noise_offset": 0.1}},
    ]
    return [
        sdxl.style(f"{prefix}-{objective}-{number}", objective, **{**each, "training": {"max_steps": steps, **each["training"]}})
        for number, each in enumerate(different)
    ]


@pytest.mark.parametrize(
    ("objective", "steps", "batch_invariant"),
    [("v_zero_snr", 1, False), pytest.param("epsilon", 20, True, marks=proof), pytest.param("v_zero_snr", 20, True, marks=proof)],
)
def test_each_of_a_pack_of_four_trains_as_an_independent_loop_trains_it_alone(
    sdxl: Sdxl, objective: str, steps: int, batch_invariant: bool
):
    styles = company(sdxl, f"pack-{steps}", objective, steps)
    assert set(sdxl.train(*styles, batch_invariant=batch_invariant).endings.values()) == {"succeeded"}
    for style in styles:
        assert_trained_alike(sdxl, style)


@proof
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_style_has_the_same_bits_in_company_and_without(sdxl: Sdxl, objective: str):
    sdxl.train(*company(sdxl, "together", objective, 3))
    for style in company(sdxl, "apart", objective, 3):
        sdxl.train(style, batch_invariant=True)
    for together, apart in zip(company(sdxl, "together", objective, 3), company(sdxl, "apart", objective, 3), strict=True):
        assert_same_bits(sdxl.saved(name_of(together)), sdxl.saved(name_of(apart)))


@pytest.mark.parametrize(
    ("objective", "text_encoder"),
    [("v_zero_snr", False), pytest.param("epsilon", True, marks=proof), pytest.param("v_zero_snr", True, marks=proof)],
)
def test_a_killed_run_resumes_bit_for_bit(sdxl: Sdxl, objective: str, text_encoder: bool):
    parts: dict[str, dict[str, Any]] = {
        "training": {"max_steps": 6, "caption_dropout": 0.3, "micro_batch_size": 1},
        "adapter": {"text_encoder": text_encoder, "dropout": 0.1},
        "checkpointing": {"every_steps": 3},
    }
    whole, killed = (f"{how}-{objective}-{text_encoder}" for how in ("whole", "killed"))
    sdxl.train(sdxl.style(whole, objective, **parts))
    with pytest.raises(Killed):
        sdxl.train(sdxl.style(killed, objective, **parts), recorder=dies_at(job_of(killed), 5))
    resumed = sdxl.train(sdxl.style(killed, objective, **parts))
    assert resumed.resumed_from == {job_of(killed): 3}
    assert_same_bits(sdxl.saved(whole), sdxl.saved(killed))


# That what is compared above could differ


def _time_ids(order: Sequence[int]) -> Callable[[Reference], None]:
    def change_them(reference: Reference) -> None:
        right = reference.time_ids
        reference.time_ids = lambda sample: right(sample)[list(order)]

    return change_them


def _conditioned(conditioning: Callable[[list[Any]], tuple[Tensor, Tensor]]) -> Callable[[Reference], None]:
    """Text and pooled text taken otherwise from what both encoders give."""

    def change_it(reference: Reference) -> None:
        reference.encode = lambda captions: conditioning(text_outputs(reference.tokenizers, reference.texts, captions))

    return change_it


def _padded_alike(reference: Reference) -> None:
    reference.tokenizers = [reference.tokenizers[0]] * 2


def _states(outputs: Sequence[Any], place: int) -> Tensor:
    return torch.cat([output.hidden_states[place] for output in outputs], dim=-1)


MISTAKES = {
    "original-size-turned": _time_ids([1, 0, 2, 3, 4, 5]),
    "crop-turned": _time_ids([0, 1, 3, 2, 4, 5]),
    "target-size-turned": _time_ids([0, 1, 2, 3, 5, 4]),
    "original-and-target-exchanged": _time_ids([4, 5, 2, 3, 0, 1]),
    "last-states": _conditioned(lambda outputs: (_states(outputs, -1), outputs[1].text_embeds)),
    "encoders-exchanged": _conditioned(lambda outputs: (_states(outputs[::-1], -2), outputs[1].text_embeds)),
    "no-pooled-text": _conditioned(lambda outputs: (_states(outputs, -2), torch.zeros_like(outputs[1].text_embeds))),
    "padded-alike": _padded_alike,
}


@pytest.fixture(scope="module")
def right(sdxl: Sdxl) -> Reference:
    return sdxl.reference(sdxl.style("mistaken", training={"micro_batch_size": 4}))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_conditioning_would_be_seen(right: Reference, mistake: str):
    wrong = copy.copy(right)
    MISTAKES[mistake](wrong)
    apart = [abs(wrong.loss_of_step(step) / right.loss_of_step(step) - 1) for step in range(2)]
    assert max(apart) > 10 * LOSS, apart
