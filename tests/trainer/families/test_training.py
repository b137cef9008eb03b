"""Every family trains as an independent loop of diffusers' pipelines, PEFT and torch does for the same draws; alone and in packs."""

from collections.abc import Callable
from typing import Any

import pytest

from lorafleet.catalog import FAMILIES
from lorafleet.contract.run_manifest import Style
from tests.trainer.families.rows import ROWS, VARIANTS
from tests.trainer.families.styles import Families
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import job_of
from tests.trainer.sdxl.reference import change, relative

pytestmark = pytest.mark.timeout(600)
proof = pytest.mark.proof
Of = Callable[[str], Families]

LOSS = 1e-5
ADAPTER = 1e-5  # of its norm
CHANGE = 1e-3  # of what training added: Adam turns a gradient that is nearly nothing into a whole step
STEPS, FEW_STEPS = 10, 3


def name_of(style: Style) -> str:
    return style.job.rpartition("/")[2]


def assert_trained_alike(packs: Families, style: Style) -> None:
    """As the independent loop trains it."""
    name, expected = name_of(style), packs.independently(style)
    assert packs.losses(name) == pytest.approx(expected.losses, rel=LOSS)
    assert packs.held_out(style) == pytest.approx(expected.held_out, rel=LOSS)
    ours = packs.adapter(name)
    assert ours.keys() == expected.adapter.keys()
    assert relative(ours, expected.adapter) < ADAPTER
    learned = {tensor_name: tensor - expected.initial[tensor_name] for tensor_name, tensor in ours.items()}
    assert relative(learned, change(expected)) < CHANGE


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_its_steps_are_those_of_an_independent_loop(families: Of, family: str, variant: str):
    packs = families(family)
    steps = STEPS if variant == packs.row.variants[0] else FEW_STEPS
    style = packs.style(f"ten-{variant}", variant, training={"max_steps": steps, "caption_dropout": 0.2})
    assert packs.train(style).endings == {style.job: "succeeded"}
    assert_trained_alike(packs, style)


@pytest.mark.parametrize("family", [name for name, row in ROWS.items() if row.has_text_adapters])
def test_text_encoders_train_as_an_independent_loop_trains_them(families: Of, family: str):
    packs = families(family)
    style = packs.style("text", training={"max_steps": 3}, adapter={"text_encoder": True})
    assert packs.train(style).endings == {style.job: "succeeded"}
    assert_trained_alike(packs, style)
    clips = {part.name for part in packs.ready(style).family.text_encoders if part.target_modules}
    assert {name.partition(".")[0] for name in packs.adapter("text")} == {"transformer", *clips}


@pytest.mark.parametrize("family", ROWS)
def test_each_of_a_pack_trains_as_an_independent_loop_trains_it_alone(families: Of, family: str):
    packs = families(family)
    different: list[dict[str, Any]] = [
        {"training": {"seed": 1}},
        {"training": {"seed": 2, "micro_batch_size": 3, "learning_rate": 3e-4}},
        {"training": {"seed": 3, "lr_scheduler": "linear", "caption_dropout": 0.5}, "adapter": {"rank": 3}},
    ]
    styles = [
        packs.style(f"pack-{number}", **{**each, "training": {"max_steps": 2, **each["training"]}}) for number, each in enumerate(different)
    ]
    assert set(packs.train(*styles, batch_invariant=False).endings.values()) == {"succeeded"}
    for style in styles:
        assert_trained_alike(packs, style)


@proof
@pytest.mark.parametrize("family", ROWS)
def test_a_style_has_the_same_bits_in_company_and_without(families: Of, family: str):
    packs = families(family)

    def company(prefix: str) -> list[Style]:
        return [packs.style(f"{prefix}-{seed}", training={"max_steps": 2, "seed": seed}) for seed in range(3)]

    packs.train(*company("together"))
    for style in company("apart"):
        packs.train(style, batch_invariant=True)
    for together, apart in zip(company("together"), company("apart"), strict=True):
        assert_same_bits(packs.saved(name_of(together)), packs.saved(name_of(apart)))


@pytest.mark.parametrize("family", ROWS)
def test_a_killed_run_resumes_bit_for_bit(families: Of, family: str):
    packs = families(family)
    parts: dict[str, Any] = {
        "training": {"max_steps": 4, "caption_dropout": 0.3, "micro_batch_size": 1},
        "adapter": {"dropout": 0.1},
        "checkpointing": {"every_steps": 2},
    }
    packs.train(packs.style("whole", **parts))
    with pytest.raises(Killed):
        packs.train(packs.style("killed", **parts), recorder=dies_at(job_of("killed"), 3))
    resumed = packs.train(packs.style("killed", **parts))
    assert resumed.resumed_from == {job_of("killed"): 2}
    assert_same_bits(packs.saved("whole"), packs.saved("killed"))


@proof
@pytest.mark.parametrize("family", ROWS)
def test_half_precision_learns_what_full_precision_learns(families: Of, family: str):
    packs = families(family)
    half = ("bf16",) if FAMILIES.get(family).overflows_fp16 else ("bf16", "fp16")
    for precision in ("fp32", *half):
        style = packs.style(precision, training={"max_steps": 2, "precision": precision})
        assert packs.train(style).endings == {style.job: "succeeded"}
    for precision in half:
        assert packs.losses(precision) == pytest.approx(packs.losses("fp32"), rel=0.05)
