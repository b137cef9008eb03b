"""Styles whose beginning is subtracted train beside others: as alone to the bit, from slot to slot, after a resume, and in their files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lorafleet.contract.layout import JobLayout, adapter_file
from lorafleet.contract.run_manifest import Style
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import Packs, job_of
from trainer.group import Group

pytestmark = pytest.mark.timeout(300)

PISSA: dict[str, Any] = {"initialization": "pissa", "rank": 2, "alpha": 1.0}
T_LORA: dict[str, Any] = {"method": "tlora", "initialization": "orthogonal", "rank": 4, "min_rank": 2}
TARGETS = ["to_q", "conv1"]


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("beginnings"), group)


def style(packs: Packs, name: str, adapter: dict[str, Any], max_steps: int = 3) -> Style:
    return packs.style(
        name,
        adapter={"target_modules": TARGETS, **adapter},
        training={"max_steps": max_steps, "learning_rate": 1e-3, "micro_batch_size": 1},
        dataset={"validation_fraction": 0.0},
        checkpointing={"every_steps": 2},
        output={"formats": ["diffusers", "kohya"], "precision": "fp32"},
    )


def test_pissa_trains_in_company_as_alone_and_its_files_are_what_it_trained(packs: Packs):
    apart, together = (style(packs, f"{how}-quick", PISSA, 1) for how in ("alone", "together"))
    packs.train(apart, batch_invariant=True)
    packs.train(together, style(packs, "other", {"rank": 2}, 1))
    assert_same_bits(packs.saved("together-quick"), packs.saved("alone-quick"))
    _its_files_are_what_it_trained(packs, together, "quick")


@pytest.mark.proof
def test_they_train_in_company_as_alone_move_to_other_slots_and_resume(packs: Packs):
    """The first PiSSA leaves after two steps, so that the second moves into its slot; and the run dies one step later."""
    company = {"short": (PISSA, 2), "pissa": (PISSA, 4), "tlora": (T_LORA, 4), "lora": ({"rank": 2}, 4)}
    for name, (adapter, steps) in company.items():
        packs.train(style(packs, f"alone-{name}", adapter, steps), batch_invariant=True)
    together = [style(packs, f"together-{name}", adapter, steps) for name, (adapter, steps) in company.items()]
    with pytest.raises(Killed):
        packs.train(*together, recorder=dies_at(job_of("together-pissa"), 3))
    resumed = packs.train(*together, batch_invariant=True)
    assert resumed.resumed_from[job_of("together-pissa")] == 2
    for name in company:
        assert_same_bits(packs.saved(f"together-{name}"), packs.saved(f"alone-{name}"))
    _its_files_are_what_it_trained(packs, together[1], "pissa")
    _its_files_are_what_it_trained(packs, together[2], "tlora")


def _its_files_are_what_it_trained(packs: Packs, trained: Style, name: str) -> None:
    """B A - B0 A0, of the checkpoint, as plain LoRA of twice the rank: in diffusers' file B holds the scale, in kohya's alpha does."""
    saved, rank = packs.saved(f"together-{name}"), trained.spec.adapter.rank
    scale, folder = (trained.spec.adapter.alpha or rank) / rank, Path(JobLayout(trained.output_uri).adapter.removeprefix("file://"))
    theirs, kohyas = (load_file(folder / adapter_file(each, trained.spec.output.name)) for each in ("diffusers", "kohya"))
    ends = [each for each in saved.weights if each.endswith("lora_A.weight")]
    assert {end.replace("lora_A", f"lora_{side}") for end in ends for side in "AB"} == set(theirs)
    for end in ends:
        names = [end, end.replace("lora_A", "lora_B")]
        a, b, a0, b0 = (tensors[each].flatten(1) for tensors in (saved.weights, _began(saved.moments)) for each in names)
        update = scale * (b @ a - b0 @ a0)
        assert update.any()
        wide_a, wide_b = (theirs[each].flatten(1) for each in names)
        assert len(wide_a) == 2 * rank
        assert torch.allclose(wide_b @ wide_a, update, atol=1e-6)
        kohya = "lora_unet_" + end.removeprefix("unet.").removesuffix(".lora_A.weight").replace(".", "_")
        down, up, alpha = (kohyas[f"{kohya}.{each}"] for each in ("lora_down.weight", "lora_up.weight", "alpha"))
        assert torch.allclose(alpha / len(down) * up.flatten(1) @ down.flatten(1), update, atol=1e-6)
    card = (folder / "README.md").read_text()
    assert f"fp32, LoRA of rank {2 * rank}: what the adapter began with ({trained.spec.adapter.initialization}) is subtracted" in card


def _began(moments: Any) -> dict[str, torch.Tensor]:
    return {key.removeprefix("began."): tensor for key, tensor in moments.items() if key.startswith("began.")}
