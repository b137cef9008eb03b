"""What only Ray does: sessions, tokens, and drivers that say how they ended."""

from dataclasses import replace

import pytest

from lorafleet.errors import LorafleetError, Unavailable
from lorafleet.spec import ClusterSpec
from service.backends.base import RunRef, RunRequest
from service.backends.ray_jobs import ambient_token
from service.control.attempts import Gone
from service.control.capacity import Hardware
from tests.service.backends.fake_ray import FakeRay
from tests.service.backends.test_contract import RUN, joined


async def test_the_entry_point_shows_no_secret():
    ray = FakeRay()
    await joined(ray).launch(RUN)
    [body] = ray.submissions
    assert body["entrypoint"] == "python -m trainer.run --manifest s3://b/run.json"
    assert body["runtime_env"] == {"env_vars": {"LORAFLEET_RUN_TOKEN": "secret-token"}}
    assert "secret-token" not in str({**body, "runtime_env": None})


async def test_a_manifest_uri_is_no_way_into_the_shell():
    ray = FakeRay()
    await joined(ray).launch(RunRequest(run_id="run-1", instance="ours", manifest_uri="s3://b/$(rm -rf x); true", token="t"))
    assert ray.submissions[0]["entrypoint"].endswith("'s3://b/$(rm -rf x); true'")


async def test_runs_of_a_replaced_head_are_gone():
    ray = FakeRay()
    backend = joined(ray)
    ref = RunRef(run_id="run-1", handle=await backend.launch(RUN))
    ray.replace_head()
    assert await backend.observe(ref) == Gone(
        reason="RAY_HEAD_GONE", message="the Ray head node was replaced, and its runs died with the old one"
    )


async def test_a_run_that_was_admitted_before_the_size_was_known_and_never_fits_is_not_submitted():
    ray = FakeRay()
    backend = joined(ray)
    backend._cluster.hardware = lambda: Hardware(gpus=0, cpus=2, memory_bytes=2**30)
    with pytest.raises(LorafleetError) as refused:
        await backend.launch(replace(RUN, cluster=ClusterSpec(gpus_per_worker=1.0)))
    assert (refused.value.reason, refused.value.retryable) == ("EXCEEDS_CAPACITY", False)
    assert ray.submissions == []


async def test_the_present_size_of_a_cluster_that_is_joined_is_no_limit():
    assert joined(FakeRay()).hardware() is None


async def test_a_refused_token_is_told():
    with pytest.raises(Unavailable) as refused:
        await joined(FakeRay(), token="wrong").launch(RUN)
    assert refused.value.reason == "RAY_TOKEN_REFUSED"
    assert "wrong" not in refused.value.message


@pytest.mark.parametrize(
    ("details", "reason", "told"),
    [
        ({"status": "FAILED", "driver_exit_code": 137, "message": "Killed"}, "DRIVER_EXITED", "code 137; its last lines: Killed"),
        ({"status": "FAILED", "driver_exit_code": None, "message": "Job supervisor actor died"}, "RUN_LOST", "supervisor actor died"),
        ({"status": "SUCCEEDED", "driver_exit_code": 0, "message": ""}, "DRIVER_EXITED", "code 0 and did not"),
        ({"status": "STOPPED", "driver_exit_code": None, "message": ""}, "RUN_STOPPED", "stopped"),
    ],
)
async def test_an_end_is_explained(details: dict, reason: str, told: str):
    ray = FakeRay()
    backend = joined(ray)
    handle = await backend.launch(RUN)
    ray.jobs["run-1"] = details
    gone = await backend.observe(RunRef(run_id="run-1", handle=handle))
    assert isinstance(gone, Gone)
    assert gone.reason == reason
    assert told in gone.message


def test_the_token_comes_from_where_rays_own_clients_take_it(tmp_path):
    (tmp_path / "token").write_text("from-file\n")
    assert ambient_token({"RAY_AUTH_TOKEN": "direct"}) == "direct"
    assert ambient_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}) == "from-file"
    assert ambient_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}) is None
