"""Generations: accepted whole or refused whole, resolved once, and then they live as jobs do: each ends once, with its pictures."""

import json
from typing import Any
from uuid import uuid4

from lorafleet.contract.run_manifest import RunManifest
from lorafleet.v1 import access_service_pb2 as access_pb
from lorafleet.v1 import adapter_service_pb2 as adapter_pb
from lorafleet.v1 import adapter_service_pb2_grpc
from lorafleet.v1 import generation_service_pb2 as pb
from lorafleet.v1 import report_service_pb2 as rpb
from lorafleet.v1 import training_service_pb2 as jobs_pb
from service.access.identity import OPEN, Identity, Role
from service.core.resource_names import parse_alias, parse_generation
from service.registry.aliases import AliasMove, set_alias
from tests.service.access.members import make_grant, make_member
from tests.service.api.generation_requests import create_generation, stub
from tests.service.api.refusals import refusal
from tests.service.api.served import Api
from tests.service.registry.made import make_version
from tests.service.world import failed, progress, stopped, succeeded

STATE = jobs_pb.JobState.Name


async def get(api: Api, name: str) -> pb.Generation:
    return await stub(api).GetGeneration(pb.GetGenerationRequest(name=name))


async def state(api: Api, name: str) -> str:
    return STATE((await get(api, name)).state).removeprefix("JOB_STATE_")


async def listed(api: Api, parent: str = "tenants/acme", **fields: Any) -> list[str]:
    page = await stub(api).ListGenerations(pb.ListGenerationsRequest(parent=parent, **fields))
    return [each.name.rpartition("/")[2] for each in page.generations]


async def started(api: Api, **changes: Any) -> tuple[str, str]:
    """Its name and its run."""
    made = await create_generation(api, **changes)
    await api.world.settle()
    return made.name, api.world.backend.launches[-1]


async def point(api: Api, number: int, alias: str = "production") -> None:
    move = AliasMove(name=parse_alias(f"tenants/acme/adapters/fox@{alias}"), number=number)
    await set_alias(api.world.tools.db, move, OPEN)


# What is accepted


async def test_a_generation_is_accepted_with_every_default_filled_in(api: Api):
    made = await create_generation(api, prompts=["a fox", "a lighthouse"], seeds=[1, 2])
    assert made.name.startswith("tenants/acme/generations/gen-")
    assert (made.state, made.num_pictures, made.spec.num_inference_steps, made.spec.precision) == (jobs_pb.JOB_STATE_QUEUED, 4, 25, "fp32")
    assert (made.spec.scheduling.priority, made.output_uri) == (20, f"file://{api.world.folder}/artifacts/{made.name}")
    assert await get(api, made.name) == made


async def test_a_job_and_a_generation_of_one_id_are_two_things(api: Api):
    await api.jobs.CreateTrainingJob(api.request(training_job_id="fox"))
    await create_generation(api, generation_id="fox")
    page = await api.jobs.ListTrainingJobs(jobs_pb.ListTrainingJobsRequest(parent="tenants/acme"))
    assert [job.name for job in page.training_jobs] == ["tenants/acme/jobs/fox"]
    assert await listed(api) == ["fox"]
    await stub(api).CancelGeneration(pb.CancelGenerationRequest(name="tenants/acme/generations/fox"))
    job = await api.jobs.GetTrainingJob(jobs_pb.GetTrainingJobRequest(name="tenants/acme/jobs/fox"))
    assert (job.state, await state(api, "tenants/acme/generations/fox")) == (jobs_pb.JOB_STATE_QUEUED, "CANCELLED")


async def test_the_same_request_answers_the_first_one_wherever_its_alias_points_by_now(api: Api):
    for _ in range(2):
        await make_version(api.world.tools.db, "fox")
    await point(api, 1)
    asked = {"request_id": str(uuid4()), "adapters": [{"uses": [{"uri": "adapters/fox@production"}]}]}
    first = await create_generation(api, **asked)
    await point(api, 2)
    assert (await create_generation(api, **asked)).uid == first.uid
    answer = await refusal(create_generation(api, **{**asked, "seeds": [7]}))
    assert (answer.code, answer.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert len(await listed(api)) == 1


async def test_a_request_id_of_a_job_is_not_a_generations(api: Api):
    request_id = str(uuid4())
    await api.jobs.CreateTrainingJob(api.request(request_id=request_id))
    assert (await refusal(create_generation(api, request_id=request_id))).reason == "REQUEST_ID_REUSED"


async def test_a_taken_id_is_refused(api: Api):
    await create_generation(api, generation_id="mine")
    assert (await refusal(create_generation(api, generation_id="mine"))).reason == "GENERATION_ID_TAKEN"


async def test_validate_only_makes_none(api: Api):
    assert (await create_generation(api, validate_only=True, generation_id="mine")).num_pictures == 1
    assert await listed(api) == []


async def test_pages_and_filters_are_those_of_jobs(api: Api):
    for number, team in enumerate(("red", "blue", "red")):
        await create_generation(api, generation_id=f"g{number}", labels={"team": team})
        api.world.clock.advance(1)
    assert await listed(api, filter='labels.team = "red"') == ["g2", "g0"]
    page = await stub(api).ListGenerations(pb.ListGenerationsRequest(parent="tenants/acme", page_size=2))
    assert await listed(api, page_token=page.next_page_token) == ["g0"]
    jobs_page = jobs_pb.ListTrainingJobsRequest(parent="tenants/acme", page_token=page.next_page_token)
    assert (await refusal(api.jobs.ListTrainingJobs(jobs_page))).reason == "BAD_PAGE_TOKEN"


# What is refused


async def test_all_that_is_wrong_is_told_at_once(api: Api):
    wrong = {"prompts": ["a" * 10_000], "weights": [1, 1], "width": 9000, "scheduler": "no-such", "cluster": {"num_workers": 2}}
    answer = await refusal(create_generation(api, adapters=[{"uses": [{"uri": "tenants/acme/fox"}]}], **wrong))
    assert answer.reason == "INVALID_SPEC"
    assert set(answer.fields) == {"prompts[0]", "weights", "width", "scheduler", "cluster", "adapters[0][0].uri"}


async def test_a_hundred_thousand_pictures_are_refused_with_the_sum(api: Api):
    answer = await refusal(create_generation(api, prompts=[f"fox {n}" for n in range(100)], seeds=list(range(1000))))
    assert "100 prompts x 1000 seeds = 100,000 pictures; at most 10,000" in answer.message


async def test_more_adapters_than_are_looked_up_at_once_are_refused(api: Api):
    answer = await refusal(create_generation(api, adapters=[{"uses": [{"uri": f"adapters/a{n}@best"}]} for n in range(257)]))
    assert "names 257 different adapters; a request has 256 at most" in answer.message


async def test_what_the_store_has_not_is_told_of_each_field(api: Api):
    adapters = [{"uses": [{"uri": "file:///nowhere/fox.safetensors"}]}]
    answer = await refusal(create_generation(api, base_model={"uri": "file:///nowhere"}, adapters=adapters))
    assert set(answer.fields) == {"base_model.uri", "adapters[0][0].uri"}


async def test_another_tenants_adapter_is_not_found(api: Api):
    await make_version(api.world.tools.db, "fox", "globex")
    for uri in ("tenants/globex/adapters/fox/versions/1", "adapters/fox/versions/1", "adapters/fox@production"):
        assert (await refusal(create_generation(api, adapters=[{"uses": [{"uri": uri}]}]))).code == "NOT_FOUND"
    await make_version(api.world.tools.db, "fox")  # one of its own by that name is no stand-in
    theirs = [{"uses": [{"uri": "tenants/globex/adapters/fox/versions/1"}]}]
    assert (await refusal(create_generation(api, adapters=theirs))).code == "NOT_FOUND"


async def test_what_is_not_granted_is_not_read(api: Api):
    await make_member(api.world.tools.db, "acme", "bob", Role.SUBMITTER)
    await make_grant(api.world.tools.db, "acme", f"file://{api.world.folder}/base")
    api.caller.identity = Identity(principal="bob")
    await create_generation(api)
    answer = await refusal(create_generation(api, adapters=[{"uses": [{"uri": f"file://{api.world.folder}/pictures"}]}]))
    assert set(answer.fields) == {"adapters[0][0].uri"}


async def test_adapters_of_two_bases_are_refused_with_both_digests_unless_forced(api: Api):
    await make_version(api.world.tools.db, "fox", family="sd1", base_digest="a" * 16)
    await make_version(api.world.tools.db, "owl", family="sd1", base_digest="b" * 16)
    adapters = [{"uses": [{"uri": f"adapters/{name}/versions/1"}]} for name in ("fox", "owl")]
    answer = await refusal(create_generation(api, adapters=adapters))
    assert "a" * 16 in answer.message
    assert "b" * 16 in answer.message
    assert (await create_generation(api, adapters=adapters, force=True)).num_pictures == 2


async def test_adapters_of_another_family_are_refused_however_forced(api: Api):
    await make_version(api.world.tools.db, "fox", family="sdxl")
    base = {"uri": f"file://{api.world.folder}/base", "family": "sd1"}
    use = [{"uses": [{"uri": "adapters/fox/versions/1"}]}]
    answer = await refusal(create_generation(api, base_model=base, adapters=use, force=True))
    assert "of the family sdxl, and the base of sd1" in answer.message


async def test_two_names_of_one_version_are_told_apart_by_nothing(api: Api):
    await make_version(api.world.tools.db, "fox")
    await point(api, 1)
    twice = [{"uses": [{"uri": name}]} for name in ("adapters/fox@production", "adapters/fox/versions/1")]
    assert "is there twice" in (await refusal(create_generation(api, adapters=twice))).message


async def test_a_deleted_version_draws_nothing_new(api: Api):
    for _ in range(2):
        await make_version(api.world.tools.db, "fox")
    await _adapters(api).DeleteAdapterVersion(adapter_pb.DeleteAdapterVersionRequest(name="tenants/acme/adapters/fox/versions/1"))
    answer = await refusal(create_generation(api, adapters=[{"uses": [{"uri": "adapters/fox/versions/1"}]}]))
    assert answer.reason == "ADAPTER_VERSION_DELETED"


async def test_more_than_may_wait_are_refused(api: Api):
    await api.access.CreateTenant(_tenant(max_queued_jobs=1))
    await create_generation(api)
    assert (await refusal(create_generation(api))).code == "RESOURCE_EXHAUSTED"


async def test_more_than_may_run_wait_with_the_reason(api: Api):
    await api.access.CreateTenant(_tenant(max_running_jobs=1))
    await started(api)
    second = await create_generation(api)
    await api.world.settle()
    assert (await get(api, second.name)).reason == "TENANT_QUOTA"


def _tenant(**limits: int) -> Any:
    return access_pb.CreateTenantRequest(tenant_id="acme", tenant=access_pb.Tenant(**limits))


# How it lives


async def test_its_run_is_told_all_that_it_draws_by_and_where(api: Api):
    await make_version(api.world.tools.db, "fox")
    await point(api, 1)
    name, run = await started(api, adapters=[{"uses": [{"uri": "adapters/fox@production", "weight": 0.5}]}])
    text = (api.world.folder / "artifacts" / "runs" / run / "run.json").read_text()
    manifest = RunManifest.model_validate_json(text)
    [task] = manifest.tasks
    assert (manifest.kind, manifest.pack, task.name) == ("generation", (), name)
    assert task.spec["resolved"]["adapters/fox@production"]["folder"] == "file:///artifacts/acme/fox/1/adapter"
    assert json.loads((api.world.folder / "artifacts" / name / "spec.json").read_text()) == task.spec


async def test_it_draws_what_its_alias_pointed_to_when_it_was_created(api: Api):
    for _ in range(2):
        await make_version(api.world.tools.db, "fox")
    await point(api, 1)
    made = await create_generation(api, adapters=[{"uses": [{"uri": "adapters/fox@production"}]}])
    await point(api, 2)
    await api.world.settle()
    [resolved] = (await get(api, made.name)).resolved_adapters
    assert (resolved.name, resolved.version) == ("adapters/fox@production", "tenants/acme/adapters/fox/versions/1")


async def test_pictures_are_told_as_they_come_and_the_end_has_them_all(api: Api):
    name, run = await started(api, seeds=[1, 2])
    await api.world.report(run, progress(0, "loading"))
    assert await state(api, name) == "STARTING"
    await api.world.report(run, progress(1, "drawing", file="base-1-0123.png"))
    found = await get(api, name)
    assert (STATE(found.state), found.progress.step, found.progress.file) == ("JOB_STATE_RUNNING", 1, "base-1-0123.png")
    assert found.HasField("first_picture_time")
    await api.world.report(run, succeeded())
    done = await get(api, name)
    assert (STATE(done.state), done.artifact.uri) == ("JOB_STATE_SUCCEEDED", f"{done.output_uri}/pictures")


async def test_what_it_has_made_is_no_version_of_an_adapter(api: Api):
    name, run = await started(api, generation_id="foxes")
    await api.world.report(run, succeeded())
    api.world.backend.end(run)
    await api.world.settle()
    assert await state(api, name) == "SUCCEEDED"
    page = await _adapters(api).ListAdapters(adapter_pb.ListAdaptersRequest(parent="tenants/acme"))
    assert list(page.adapters) == []


def _adapters(api: Api) -> Any:
    return adapter_service_pb2_grpc.AdapterServiceStub(api.channel)


async def test_a_lost_run_is_followed_by_another_and_the_generation_ends_once(api: Api):
    name, run = await started(api)
    await api.world.report(run, progress(1, "drawing"))
    api.world.backend.end(run)
    for _ in range(2):  # it is observed, and then its back-off is over
        api.world.clock.advance(6)
        await api.world.settle()
    assert (await state(api, name), len(api.world.backend.launches)) == ("STARTING", 2)
    assert (await refusal(_report(api, run, succeeded()))).reason == "STALE_ATTEMPT"
    await api.world.report(api.world.backend.launches[-1], succeeded())
    found = await get(api, name)
    assert (STATE(found.state), [each.reason for each in found.attempts]) == ("JOB_STATE_SUCCEEDED", ["RUN_LOST", "SUCCEEDED"])


async def _report(api: Api, run: str, event: rpb.RunEvent) -> Any:
    event.sequence = 99
    request = rpb.ReportRequest(run=run, source="driver", events=[event])
    return await api.reports.Report(
        request, metadata=[("authorization", f"Bearer {api.world.tools.tokens.of(run, api.world.clock.now())}")]
    )


async def test_pictures_that_are_committed_are_its_end_although_the_last_report_was_lost(api: Api):
    name, run = await started(api)
    await api.world.commit_artifact(parse_generation(name))
    api.world.backend.end(run)
    api.world.clock.advance(5)
    await api.world.settle()
    found = await get(api, name)
    assert (STATE(found.state), len(found.attempts)) == ("JOB_STATE_SUCCEEDED", 1)


async def test_a_request_that_cannot_be_drawn_fails_with_what_its_run_says(api: Api):
    name, run = await started(api)
    await api.world.report(run, failed("INVALID_SPEC", retryable=False, message="width: 65 is no multiple of 8"))
    found = await get(api, name)
    assert (STATE(found.state), found.reason, found.message) == ("JOB_STATE_FAILED", "INVALID_SPEC", "width: 65 is no multiple of 8")


async def test_a_cancel_stops_its_run_and_ends_it_once(api: Api):
    name, run = await started(api)
    await api.world.report(run, progress(1, "drawing"))
    before = await get(api, name)
    stale = pb.CancelGenerationRequest(name=name, etag="old")
    assert (await refusal(stub(api).CancelGeneration(stale))).code == "ABORTED"
    await stub(api).CancelGeneration(pb.CancelGenerationRequest(name=name, etag=before.etag))
    answer = await api.world.report(run)
    assert [directive.job for directive in answer.directives] == [name]
    await api.world.report(run, stopped())
    assert await state(api, name) == "CANCELLED"


async def test_it_waits_for_no_base_to_be_read_and_shares_no_run(api: Api):
    for _ in range(2):
        await create_generation(api)
    await api.world.settle()
    assert len(api.world.backend.launches) == 1  # the limit of this world: one run at a time
    run = api.world.backend.launches[0]
    manifest = RunManifest.model_validate_json((api.world.folder / "artifacts" / "runs" / run / "run.json").read_text())
    assert len(manifest.tasks) == 1


async def test_warm_workers_take_the_next_on_the_same_base_and_those_of_training_take_none(api: Api):
    first, run = await started(api)
    await api.world.report(run, succeeded(), idle=True)
    second = await create_generation(api, seeds=[2])
    await api.world.settle()
    offered = (await api.world.report(run, idle=True)).next_run
    assert offered.run
    assert len(api.world.backend.launches) == 1
    await api.world.report(offered.run, succeeded(), source="worker-0")
    assert [await state(api, name) for name in (first, second.name)] == ["SUCCEEDED", "SUCCEEDED"]
    await api.world.report(offered.run, source="worker-0", idle=True)
    await api.jobs.CreateTrainingJob(api.request())
    await api.world.settle()
    assert not (await api.world.report(offered.run, source="worker-0", idle=True)).HasField("next_run")


async def test_a_watch_shows_generations_alone_and_one_of_jobs_none(api: Api):
    watch = stub(api).WatchGenerations(pb.WatchGenerationsRequest(parent="tenants/acme"))
    assert not (await watch.read()).HasField("generation")
    jobs = api.jobs.WatchTrainingJobs(jobs_pb.WatchTrainingJobsRequest(parent="tenants/acme"))
    await jobs.read()
    await api.jobs.CreateTrainingJob(api.request(training_job_id="fox"))
    made = await create_generation(api, generation_id="foxes")
    seen = await _next(watch, "generation")
    assert (seen.generation.name, seen.generation.spec, seen.generation.num_pictures) == (made.name, made.spec, 1)
    assert (await _next(jobs, "training_job")).training_job.name == "tenants/acme/jobs/fox"
    await stub(api).CancelGeneration(pb.CancelGenerationRequest(name=made.name))
    resumed = stub(api).WatchGenerations(pb.WatchGenerationsRequest(parent="tenants/acme", resume_token=seen.resume_token))
    assert (await _next(resumed, "generation")).generation.state == jobs_pb.JOB_STATE_CANCELLED
    other = jobs_pb.WatchTrainingJobsRequest(parent="tenants/acme", resume_token=seen.resume_token)
    assert (await refusal(api.jobs.WatchTrainingJobs(other).read())).reason == "BAD_RESUME_TOKEN"
    for each in (watch, jobs, resumed):
        each.cancel()


async def _next(watch: Any, field: str) -> Any:
    while not (event := await watch.read()).HasField(field):
        pass
    return event


async def test_a_watch_of_one_ends_nowhere_else(api: Api):
    made = await create_generation(api, generation_id="foxes")
    await create_generation(api, generation_id="owls")
    watch = stub(api).WatchGenerations(pb.WatchGenerationsRequest(parent="tenants/acme", name=made.name))
    assert (await _next(watch, "generation")).generation.name == made.name
    await stub(api).CancelGeneration(pb.CancelGenerationRequest(name="tenants/acme/generations/owls"))
    await stub(api).CancelGeneration(pb.CancelGenerationRequest(name=made.name))
    await watch.read()  # the heartbeat that ends the snapshot
    assert (await _next(watch, "generation")).generation.state == jobs_pb.JOB_STATE_CANCELLED
    watch.cancel()
    gone = stub(api).WatchGenerations(pb.WatchGenerationsRequest(parent="tenants/acme", name="tenants/acme/generations/none"))
    assert (await refusal(gone.read())).reason == "GENERATION_NOT_FOUND"


async def test_what_the_store_does_not_hold_is_not_signed(api: Api):
    name, run = await started(api)
    await api.world.report(run, succeeded())
    answer = await refusal(stub(api).SignGeneration(pb.SignGenerationRequest(name=name)))
    assert answer.reason == "ARTIFACT_CHANGED", "nothing lies there"
