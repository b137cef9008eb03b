"""CreateTrainingJob: accepted whole or refused whole, with every reason; once for each request id."""

from uuid import uuid4

import pytest

from lorafleet.errors import Unavailable
from lorafleet.v1 import training_service_pb2 as pb
from service.db.models import JobRow
from service.store.client import StoreError
from tests.service.api.refusals import refusal
from tests.service.api.served import Api


async def count(api: Api) -> int:
    return len((await api.jobs.ListTrainingJobs(pb.ListTrainingJobsRequest(parent="tenants/acme"))).training_jobs)


async def test_a_job_is_accepted_with_every_default_filled_in(api: Api):
    job = await api.jobs.CreateTrainingJob(api.request())
    assert job.name.startswith("tenants/acme/jobs/job-")
    assert (job.state, job.spec.adapter.rank, job.spec.training.max_steps) == (pb.JOB_STATE_QUEUED, 16, 1000)
    assert job.output_uri == f"file://{api.world.folder}/artifacts/{job.name}"
    assert await api.jobs.GetTrainingJob(pb.GetTrainingJobRequest(name=job.name)) == job


async def test_the_same_request_answers_the_first_job(api: Api):
    request = api.request(request_id=str(uuid4()))
    first = await api.jobs.CreateTrainingJob(request)
    request.request_id = request.request_id.upper()
    assert (await api.jobs.CreateTrainingJob(request)).uid == first.uid
    assert await count(api) == 1


async def test_a_repeated_request_is_answered_although_the_store_has_changed(api: Api):
    request = api.request(request_id=str(uuid4()))
    first = await api.jobs.CreateTrainingJob(request)
    (api.world.folder / "pictures" / "a.png").unlink()
    assert (await api.jobs.CreateTrainingJob(request)).uid == first.uid


async def test_a_request_id_with_another_body_is_refused(api: Api):
    request = api.request(request_id=str(uuid4()))
    await api.jobs.CreateTrainingJob(request)
    request.training_job.spec.adapter.rank = 4
    answer = await refusal(api.jobs.CreateTrainingJob(request))
    assert (answer.code, answer.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert await count(api) == 1


async def test_a_taken_id_is_refused(api: Api):
    await api.jobs.CreateTrainingJob(api.request(training_job_id="mine"))
    answer = await refusal(api.jobs.CreateTrainingJob(api.request(training_job_id="mine")))
    assert (answer.code, answer.reason) == ("ALREADY_EXISTS", "JOB_ID_TAKEN")


async def test_validate_only_makes_no_job(api: Api):
    job = await api.jobs.CreateTrainingJob(api.request(validate_only=True, training_job_id="mine"))
    assert job.spec.adapter.rank == 16
    assert await count(api) == 0


async def test_every_violation_is_named_as_the_user_wrote_it(api: Api):
    request = api.request()
    spec = request.training_job.spec
    spec.adapter.rank, spec.training.max_steps, spec.training.learning_rate, spec.base_model.family = 0, 0, -1, "sd9"
    answer = await refusal(api.jobs.CreateTrainingJob(request))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "INVALID_SPEC")
    assert set(answer.fields) == {"adapter.rank", "training.max_steps", "training.learning_rate", "base_model.family"}
    assert await count(api) == 0


async def test_what_is_missing_in_the_store_is_named(api: Api):
    (api.world.folder / "base" / "model_index.json").unlink()
    (api.world.folder / "pictures" / "a.png").unlink()
    answer = await refusal(api.jobs.CreateTrainingJob(api.request()))
    assert set(answer.fields) == {"base_model.uri", "dataset.uri"}


async def test_a_base_model_without_index_is_refused(api: Api):
    (api.world.folder / "base" / "model_index.json").rename(api.world.folder / "base" / "other.json")
    answer = await refusal(api.jobs.CreateTrainingJob(api.request()))
    assert "model_index.json" in answer.fields["base_model.uri"]


async def test_an_output_that_holds_an_artifact_is_refused(api: Api):
    request = api.request()
    request.training_job.spec.output.uri = f"file://{api.world.folder}/out"
    await api.world.tools.store.put(f"file://{api.world.folder}/out/adapter/manifest.json", b"{}")
    answer = await refusal(api.jobs.CreateTrainingJob(request))
    assert "holds an artifact" in answer.fields["output.uri"]


async def test_an_output_that_another_job_writes_to_is_refused(api: Api):
    request = api.request()
    request.training_job.spec.output.uri = f"file://{api.world.folder}/out"
    await api.jobs.CreateTrainingJob(request)
    answer = await refusal(api.jobs.CreateTrainingJob(request))
    assert "is writing to" in answer.fields["output.uri"]


async def test_an_output_that_is_not_writable_is_refused(api: Api):
    (api.world.folder / "file").write_text("in the way")
    request = api.request()
    request.training_job.spec.output.uri = f"file://{api.world.folder}/file/out"
    answer = await refusal(api.jobs.CreateTrainingJob(request))
    assert "output.uri" in answer.fields


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (StoreError('bucket "raw" does not exist', reason="BUCKET_MISSING"), "INVALID_ARGUMENT", "INVALID_SPEC"),
        (StoreError("access denied", reason="ACCESS_DENIED"), "INVALID_ARGUMENT", "INVALID_SPEC"),
        (Unavailable("the store does not answer", reason="STORE_UNREACHABLE"), "UNAVAILABLE", "STORE_UNREACHABLE"),
    ],
)
async def test_what_the_store_refuses_is_told(api: Api, monkeypatch: pytest.MonkeyPatch, error, code, reason):
    async def is_empty(uri: str) -> bool:
        raise error

    monkeypatch.setattr(api.world.tools.store, "is_empty", is_empty)
    answer = await refusal(api.jobs.CreateTrainingJob(api.request()))
    assert (answer.code, answer.reason) == (code, reason)
    assert error.message in answer.message
    assert await count(api) == 0


async def test_labels_are_kept_beside_the_spec(api: Api):
    request = api.request()
    request.training_job.spec.labels["team"] = "red"
    job = await api.jobs.CreateTrainingJob(request)
    async with api.world.tools.db.snapshot() as tx:
        row = await tx.session.get(JobRow, job.uid)
        assert row is not None
        assert row.labels == {"team": "red"}


async def test_an_unknown_profile_is_refused_with_those_that_there_are(api: Api):
    request = api.request()
    request.training_job.spec.cluster.profile = "h100"
    request.training_job.spec.dataset.uri = f"file://{api.world.folder}/nothing"
    answer = await refusal(api.jobs.CreateTrainingJob(request))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "INVALID_SPEC")
    assert answer.fields["cluster.profile"] == '"h100" is not a profile of this service; there are: default'
    assert "dataset.uri" in answer.fields
    assert await count(api) == 0


async def test_the_default_profile_is_told_like_any_default(api: Api):
    assert (await api.jobs.CreateTrainingJob(api.request())).spec.cluster.profile == "default"
