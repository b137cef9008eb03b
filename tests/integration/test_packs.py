"""Packs through the real service: what ends one style changes no bit of another, and warm workers take the next pack."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor, equal

from lorafleet.contract.layout import adapter_file
from lorafleet.v1 import training_service_pb2 as pb
from tests.integration.conftest import Fleet
from tests.service.serving import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

STEPS = 60


def defaults(base: str, style: str, **training: Any) -> dict[str, Any]:
    return {
        "base_model": {"uri": base},
        "dataset": {"uri": style, "validation_fraction": 0.02},
        "adapter": {"rank": 4, "target_modules": ["to_q", "to_v"]},
        "training": {"max_steps": STEPS, "micro_batch_size": 1, "learning_rate": 1e-3, **training},
        "checkpointing": {"every_steps": 4},
    }


def good(prefix: str) -> list[dict[str, Any]]:
    """Five styles, of which the last one ends before the others."""
    seeds = [{"job_id": f"{prefix}-{seed}", "spec": {"training": {"seed": seed}}} for seed in range(4)]
    early = {
        "training": {"seed": 9, "learning_rate": 0.05},
        "validation": {"every_steps": 2, "early_stopping_patience": 1},
        "dataset": {"validation_fraction": 0.05},
    }
    return [*seeds, {"job_id": f"{prefix}-early", "spec": early}]


def items(specs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"job_id": each["job_id"], **each["spec"]} for each in specs]


def adapter(job: pb.TrainingJob) -> dict[str, Tensor]:
    folder, job_id = Path(job.artifact.uri.removeprefix("file://")), job.name.rpartition("/")[2]
    return load_file(folder / adapter_file("diffusers", job_id))


@pytest.mark.proof
def test_four_calamities_in_a_pack_of_eight_change_no_bit_of_the_other_five(fleet: Fleet, base: str, style: str, tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "broken.txt").write_text("nothing")
    calm = fleet.client.create_batch(defaults(base, style), items(good("calm")), batch_id="calm")
    diverging = {"training": {"learning_rate": 10.0, "weight_decay": 3e38, "max_grad_norm": 0.0}}
    troubled = [
        *good("storm"),
        {"job_id": "storm-nan", "spec": diverging},
        {"job_id": "storm-corrupt", "spec": {"dataset": {"uri": f"file://{tmp_path}"}}},
        {"job_id": "storm-cancelled", "spec": {"training": {"max_steps": 5000}}},
    ]
    for _ in fleet.client.watch_batch(calm.name, timeout_s=400):
        pass
    storm = fleet.client.create_batch(defaults(base, style), items(troubled), batch_id="storm")

    fleet.reach("storm-cancelled", "RUNNING", step=6)
    fleet.client.cancel("storm-cancelled")
    job = fleet.reach("storm-0", "RUNNING", step=10)
    assert job.attempts[-1].pack_size == 8
    fleet.driver(job).kill()
    for _ in fleet.client.watch_batch(storm.name, timeout_s=400):
        pass

    for number in (*range(4), "early"):
        undisturbed, survivor = (fleet.client.get(f"{prefix}-{number}") for prefix in ("calm", "storm"))
        assert (undisturbed.state, survivor.state) == (pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_SUCCEEDED), survivor.message
        ours, theirs = adapter(survivor), adapter(undisturbed)
        assert ours.keys() == theirs.keys()
        assert all(equal(ours[name], theirs[name]) for name in ours), number
        assert survivor.progress.held_out_loss == undisturbed.progress.held_out_loss
    assert len(fleet.client.get("storm-0").attempts) == 2
    assert fleet.client.get("storm-early").progress.step < STEPS
    ends = {name: fleet.client.get(f"storm-{name}") for name in ("nan", "corrupt", "cancelled")}
    assert (ends["nan"].state, ends["nan"].reason) == (pb.JOB_STATE_FAILED, "LOSS_NOT_FINITE")
    assert ends["corrupt"].state == pb.JOB_STATE_FAILED
    assert "broken.png" in ends["corrupt"].message
    assert ends["cancelled"].state == pb.JOB_STATE_CANCELLED
    assert "storm-nan" not in fleet.log("storm-1"), "a job's log has no lines of its neighbours"
    assert "storm-1" in fleet.log("storm-1")


def test_warm_workers_take_the_next_job_within_seconds(fleet: Fleet, base: str, style: str):
    first = fleet.client.create_batch(defaults(base, style, max_steps=2), [{"job_id": "warming"}], batch_id="warming")
    for _ in fleet.client.watch_batch(first.name, timeout_s=400):
        pass
    second = fleet.client.create_batch(defaults(base, style, max_steps=2), [{"job_id": "warmed"}], batch_id="warmed")
    for _ in fleet.client.watch_batch(second.name, timeout_s=400):
        pass
    cold, warm = (fleet.client.get(name) for name in ("warming", "warmed"))
    assert warm.state == pb.JOB_STATE_SUCCEEDED, warm.message
    assert warm.attempts[-1].run != cold.attempts[-1].run
    until(lambda: "== run " in fleet.log("warmed"), 60, "the log of the warm run")
    assert cold.attempts[-1].run not in fleet.log("warmed")
    assert warm.first_step_time.seconds - warm.create_time.seconds < 30


def test_a_late_job_joins_a_pack_that_trains(fleet: Fleet, base: str, style: str):
    endless = defaults(base, style, max_steps=100_000)
    batch = fleet.client.create_batch(
        endless, [{"job_id": "early-bird"}, {"job_id": "companion", "training": {"seed": 2}}], batch_id="open-ended"
    )
    first = fleet.reach("early-bird", "RUNNING", step=2)
    late = fleet.client.create_batch(endless, [{"job_id": "latecomer", "training": {"seed": 3}}], batch_id="late")
    joined = fleet.reach("latecomer", "RUNNING", step=2)
    assert [attempt.run for attempt in joined.attempts] == [first.attempts[-1].run]
    assert fleet.client.get("early-bird").state == pb.JOB_STATE_RUNNING
    for each in (batch, late):
        fleet.client.cancel_batch(each.name)
        for job in fleet.client.watch_batch(each.name, timeout_s=120):
            assert job.state != pb.JOB_STATE_FAILED, job.message
