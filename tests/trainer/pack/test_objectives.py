"""Styles of one pack may have objectives of their own: each learns, resumes to the bit, and is what it would be alone."""

from typing import Any

import pytest

from lorafleet.contract.run_manifest import Style
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import Packs, job_of
from trainer.group import Group

pytestmark = pytest.mark.timeout(300)

OBJECTIVES: dict[str, dict[str, Any]] = {
    "times": {"time_density": "logit_normal", "time_mean": 0.5, "time_shift": 2.0, "min_time": 0.2, "max_time": 0.8},
    "robust": {"loss": "huber", "huber_schedule": "exponential", "weighting": "debiased", "time_density": "cubic"},
    "noisy": {"pyramid_noise_discount": 0.6, "input_perturbation": 0.1, "weighting": "snr"},
    "drawn": {"latents": "sampled"},
}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("objectives"), group)


def company(packs: Packs, prefix: str) -> list[Style]:
    plain = packs.style(f"{prefix}-plain")
    return [plain, *(packs.style(f"{prefix}-{name}", objective=objective) for name, objective in OBJECTIVES.items())]


@pytest.mark.proof
def test_each_objective_trains_in_company_as_alone(packs: Packs):
    assert set(packs.train(*company(packs, "together")).endings.values()) == {"succeeded"}
    for style in company(packs, "apart"):
        packs.train(style, batch_invariant=True)
    losses = [tuple(packs.losses(f"apart-{name}")) for name in ("plain", *OBJECTIVES)]
    assert len(set(losses)) == len(losses), "each changes what is trained"
    for name in ("plain", *OBJECTIVES):
        assert_same_bits(packs.saved(f"together-{name}"), packs.saved(f"apart-{name}"))


@pytest.mark.parametrize(
    "name", [name if name in {"noisy", "drawn"} else pytest.param(name, marks=pytest.mark.proof) for name in OBJECTIVES]
)
def test_a_killed_style_resumes_bit_for_bit(packs: Packs, name: str):
    packs.train(packs.style(f"whole-{name}", objective=OBJECTIVES[name]))
    killed = packs.style(f"killed-{name}", objective=OBJECTIVES[name])
    with pytest.raises(Killed):
        packs.train(killed, recorder=dies_at(job_of(f"killed-{name}"), 5))
    assert packs.train(killed).resumed_from == {job_of(f"killed-{name}"): 3}
    assert_same_bits(packs.saved(f"whole-{name}"), packs.saved(f"killed-{name}"))
