"""Workers that stand by, through the real service: they outlive it, take the first job, and are warm workers from then on."""

from pathlib import Path

import pytest

from lorafleet import spec
from service.backends import ray_head
from tests.integration.conftest import PATIENCE_S, Fleet
from tests.service.serving import until

pytestmark = [pytest.mark.integration, pytest.mark.proof, pytest.mark.timeout(900)]
STANDBY = {"LORAFLEET_STANDBY_WORKERS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def said(fleet: Fleet, words: str) -> int:
    return (fleet.folder / "state" / "serve.log").read_text().count(words)


def test_the_first_job_is_trained_by_workers_that_stood_by_and_outlived_the_server(base: str, style: str, tmp_path: Path):
    fleet = Fleet(tmp_path, STANDBY)
    try:
        until(lambda: said(fleet, "stands by; its workers wait") == 1, PATIENCE_S, "workers that stand by")
        fleet.served.kill()
        fleet.start()
        fleet.wait_for_ray()
        fields = {"base_model": {"uri": base}, "dataset": {"uri": style}, "adapter": {"rank": 2}, "training": {"max_steps": 3}}
        name = fleet.client.create(spec.parse(fields), job_id="first").name
        job = fleet.reach(name, "SUCCEEDED")
        assert len(job.attempts) == 1
        assert said(fleet, "on the warm workers of") == 1, "nothing was started for it"
        assert said(fleet, "comes up to stand by") == 1
    finally:
        fleet.close()
    assert ray_head.processes(fleet.head) == []
