"""CreateBatch: accepted whole or refused whole, with every mistake of every item; once for each request id."""

import asyncio
from uuid import uuid4

import pytest

from lorafleet.errors import Unavailable
from lorafleet.v1 import batch_service_pb2 as pb
from lorafleet.v1 import training_service_pb2 as jobs_pb
from service.api.servicers import batches as batching
from service.store.client import StoreError
from tests.service.api.batch_requests import create, good, header, item, parts, spec
from tests.service.api.refusals import refusal
from tests.service.api.served import Api


async def jobs_of(api: Api) -> list[jobs_pb.TrainingJob]:
    request = jobs_pb.ListTrainingJobsRequest(parent="tenants/acme", order_by="create_time", page_size=1000)
    return sorted((await api.jobs.ListTrainingJobs(request)).training_jobs, key=lambda job: job.batch_index)


async def nothing_is_stored(api: Api) -> bool:
    listed = await api.batches.ListBatches(pb.ListBatchesRequest(parent="tenants/acme"))
    return not listed.batches and not await jobs_of(api)


async def test_every_item_becomes_a_job_with_the_defaults_filled_in(api: Api):
    labels = {**good(api.world), "labels": {"team": "red", "run": "1"}, "training": {"max_steps": 7, "seed": 1}}
    items = [item(), item("fox", training={"seed": 2}, labels={"run": "2"})]
    batch = await create(api, items, defaults=spec(**labels))
    assert (batch.name, batch.num_jobs) == ("tenants/acme/batches/night", 2)
    assert [(count.state, count.count) for count in batch.counts] == [(jobs_pb.JOB_STATE_QUEUED, 2)]
    first, fox = await jobs_of(api)
    assert [job.name for job in (first, fox)] == ["tenants/acme/jobs/night-00000", "tenants/acme/jobs/fox"]
    assert [(job.batch, job.batch_index) for job in (first, fox)] == [(batch.name, 0), (batch.name, 1)]
    assert (fox.spec.training.max_steps, fox.spec.training.seed, fox.spec.adapter.rank) == (7, 2, 16)
    assert [dict(job.spec.labels) for job in (first, fox)] == [{"team": "red", "run": "1"}, {"team": "red", "run": "2"}]
    assert fox.output_uri == f"file://{api.world.folder}/artifacts/{fox.name}"
    assert fox == await api.jobs.GetTrainingJob(jobs_pb.GetTrainingJobRequest(name=fox.name))


async def test_a_lone_job_has_no_batch(api: Api):
    assert (await api.jobs.CreateTrainingJob(api.request())).batch == ""


async def test_a_batch_without_id_gets_one(api: Api):
    batch = await create(api, [item()], batch_id="")
    assert batch.name.startswith("tenants/acme/batches/batch-")
    assert (await jobs_of(api))[0].name == f"tenants/acme/jobs/{batch.name.rsplit('/', 1)[1]}-00000"


async def test_all_mistakes_of_all_items_are_told_at_once(api: Api):
    items = [item(), item("Bad", adapter={"rank": 0}), item(training={"max_steps": -1, "lr_scheduler": "steep"}), item("a"), item("a")]
    answer = await refusal(create(api, items))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "INVALID_SPEC")
    assert set(answer.fields) == {
        "items[1].job_id",
        "items[1].adapter.rank",
        "items[2].training.max_steps",
        "items[2].training.lr_scheduler",
        "items[4].job_id",
    }
    assert await nothing_is_stored(api)


async def test_a_mistake_of_the_defaults_is_told_once(api: Api):
    defaults = spec(**good(api.world), adapter={"rank": 0})
    answer = await refusal(create(api, [item(), item(), item(training={"max_steps": -1})], defaults=defaults))
    assert set(answer.fields) == {"defaults.adapter.rank", "items[2].training.max_steps"}


async def test_what_every_item_lacks_is_told_once(api: Api):
    lacking = spec(base_model=good(api.world)["base_model"])
    assert set((await refusal(create(api, [item(), item()], defaults=lacking))).fields) == {"items[*].dataset"}
    items = [item(dataset={"uri": "file:///d"}), item()]
    assert set((await refusal(create(api, items, defaults=lacking))).fields) == {"items[1].dataset"}


async def test_a_default_that_every_item_replaces_is_no_mistake(api: Api):
    defaults = spec(**good(api.world), training={"lr_warmup_steps": 2000})
    batch = await create(api, [item(training={"max_steps": 3000}), item(training={"max_steps": 4000})], defaults=defaults)
    assert batch.num_jobs == 2


async def test_thousands_of_mistakes_fit_into_an_answer(api: Api):
    long = "x" * 5000
    items = [item(adapter={"rank": -place}, dataset={"uri": f"file:///{place}{long}/../%{'é' * 100}"}) for place in range(1000)]
    answer = await refusal(create(api, items))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "INVALID_SPEC")
    assert {"items[0].adapter.rank", "items[0].dataset.uri", "items[1].adapter.rank"} < set(answer.fields)
    told = len(answer.fields) - 1
    assert answer.fields["more"] == f"and {2000 - told:,} more problems; fix these first"
    assert answer.message == "2000 problems in the spec"


async def test_one_request_sent_twice_at_once_makes_one_batch(api: Api):
    request_id = str(uuid4())
    first, second = await asyncio.gather(*(create(api, [item(), item()], batch_id="", request_id=request_id) for _ in range(2)))
    assert first == second
    assert len(await jobs_of(api)) == 2


async def test_one_id_asked_for_twice_at_once_makes_one_batch(api: Api):
    answers = await asyncio.gather(*(create(api, [item()]) for _ in range(3)), return_exceptions=True)
    assert len([answer for answer in answers if isinstance(answer, pb.Batch)]) == 1
    assert len(await jobs_of(api)) == 1


async def test_ten_thousand_and_one_items_are_refused(api: Api):
    answer = await refusal(create(api, [item() for _ in range(10_001)]))
    assert (answer.code, answer.reason, list(answer.fields)) == ("INVALID_ARGUMENT", "BATCH_TOO_LARGE", ["items"])
    assert "10,000" in answer.message


async def test_a_stream_without_end_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batching, "MAX_BATCH_BYTES", 10_000)

    async def endless():
        yield pb.CreateBatchRequest(header=header(api.world))
        while True:
            yield pb.CreateBatchRequest(items=pb.BatchItems(items=[item(labels={"a": "x" * 250})]))

    answer = await refusal(api.batches.CreateBatch(endless()))
    assert answer.reason == "BATCH_TOO_LARGE"


async def test_an_empty_batch_is_refused(api: Api):
    assert list((await refusal(create(api, []))).fields) == ["items"]


@pytest.mark.parametrize("wrong", [[], ["items"], ["items", "header"], ["header", "header"]])
async def test_the_header_comes_first_and_once(api: Api, wrong: list[str]):
    head, items = parts(header(api.world), [item()])
    answer = await refusal(api.batches.CreateBatch(iter([head if part == "header" else items for part in wrong])))
    assert (answer.code, list(answer.fields)) == ("INVALID_ARGUMENT", ["header"])


@pytest.mark.parametrize(("field", "value"), [("parent", "acme"), ("batch_id", "Night"), ("batch_id", "a" * 31), ("request_id", "no uuid")])
async def test_a_bad_header_is_refused(api: Api, field: str, value: str):
    assert list((await refusal(create(api, [item()], **{field: value}))).fields) == [field]


async def test_two_items_that_write_to_one_folder_are_refused(api: Api):
    out = {"uri": f"file://{api.world.folder}/out"}
    answer = await refusal(create(api, [item(output=out), item(), item(output={"uri": f"{out['uri']}/"})]))
    assert list(answer.fields) == ["items[2].output.uri"]
    assert "items[0]" in answer.fields["items[2].output.uri"]


async def test_one_folder_for_all_in_the_defaults_is_told_once(api: Api):
    defaults = spec(**good(api.world), output={"uri": f"file://{api.world.folder}/out"})
    answer = await refusal(create(api, [item() for _ in range(50)], defaults=defaults))
    assert list(answer.fields) == ["defaults.output.uri"]


async def test_an_item_that_names_another_items_id_is_refused(api: Api):
    answer = await refusal(create(api, [item("night-00001"), item()]))
    assert "items[1].job_id" in answer.fields


async def test_ids_and_folders_of_other_jobs_are_refused(api: Api):
    request = api.request(training_job_id="fox")
    request.training_job.spec.output.uri = f"file://{api.world.folder}/out"
    await api.jobs.CreateTrainingJob(request)
    answer = await refusal(create(api, [item("fox"), item(output={"uri": f"file://{api.world.folder}/out"})]))
    assert set(answer.fields) == {"items[0].job_id", "items[1].output.uri"}
    assert "is writing to" in answer.fields["items[1].output.uri"]


async def test_a_taken_batch_id_is_refused(api: Api):
    await create(api, [item()])
    answer = await refusal(create(api, [item()]))
    assert (answer.code, answer.reason) == ("ALREADY_EXISTS", "BATCH_ID_TAKEN")


async def test_the_same_request_answers_the_first_batch(api: Api):
    request_id = str(uuid4())
    first = await create(api, [item(), item()], batch_id="", request_id=request_id)
    (api.world.folder / "pictures" / "a.png").unlink()  # it is answered although the store has changed
    again = await create(api, [item(), item()], batch_id="", request_id=request_id.upper())
    assert again == first
    assert len(await jobs_of(api)) == 2


@pytest.mark.parametrize("changed", [[item()], [item(), item("other")], [item(), item(adapter={"rank": 4})]])
async def test_a_request_id_with_another_body_is_refused(api: Api, changed: list[pb.BatchItem]):
    request_id = str(uuid4())
    await create(api, [item(), item()], request_id=request_id)
    answer = await refusal(create(api, changed, request_id=request_id))
    assert (answer.code, answer.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


async def test_the_same_specs_written_otherwise_are_the_same_request(api: Api):
    request_id = str(uuid4())
    first = await create(api, [item(adapter={"rank": 4})], request_id=request_id)
    defaults = spec(**good(api.world), adapter={"rank": 4})
    assert (await create(api, [item()], request_id=request_id, defaults=defaults)).uid == first.uid


async def test_validate_only_stores_nothing(api: Api):
    batch = await create(api, [item()], validate_only=True)
    assert (batch.num_jobs, batch.counts[0].count) == (1, 1)
    assert await nothing_is_stored(api)


async def test_what_the_store_shows_is_told_where_it_is_to_be_mended(api: Api):
    root = api.world.folder
    (root / "pictures" / "a.png").unlink()
    (root / "out" / "adapter").mkdir(parents=True)
    (root / "out" / "adapter" / "manifest.json").write_text("{}")
    empty = {"uri": f"file://{root}/nothing"}
    items = [item(), item(), item(dataset=empty), item(base_model=empty), item(output={"uri": f"file://{root}/out"})]
    answer = await refusal(create(api, items))
    assert set(answer.fields) == {"defaults.dataset.uri", "items[2].dataset.uri", "items[3].base_model.uri", "items[4].output.uri"}
    assert "holds an artifact" in answer.fields["items[4].output.uri"]
    assert await nothing_is_stored(api)


async def test_an_artifact_in_the_services_own_folder_is_told_with_its_item(api: Api):
    await api.world.tools.store.put(f"file://{api.world.folder}/artifacts/tenants/acme/jobs/fox/adapter/manifest.json", b"{}")
    assert list((await refusal(create(api, [item(), item("fox")]))).fields) == ["items[1].output.uri"]


async def test_a_folder_that_cannot_be_written_is_told(api: Api):
    (api.world.folder / "file").write_text("in the way")
    answer = await refusal(create(api, [item(output={"uri": f"file://{api.world.folder}/file/out"})]))
    assert list(answer.fields) == ["items[0].output.uri"]


async def test_each_folder_is_asked_after_once(api: Api, monkeypatch: pytest.MonkeyPatch):
    store, asked = api.world.tools.store, []
    is_empty, put = store.is_empty, store.put

    async def counted_is_empty(uri: str) -> bool:
        asked.append(uri)
        return await is_empty(uri)

    async def counted_put(uri: str, data: bytes) -> None:
        asked.append(uri.rpartition("/")[0])
        await put(uri, data)

    monkeypatch.setattr(store, "is_empty", counted_is_empty)
    monkeypatch.setattr(store, "put", counted_put)
    out = f"file://{api.world.folder}/out"
    await create(api, [*(item() for _ in range(20)), *(item(output={"uri": f"{out}/{place}"}) for place in range(20))])
    root = f"file://{api.world.folder}"
    assert sorted(asked) == sorted([f"{root}/base", f"{root}/pictures", f"{root}/artifacts/tenants/acme/jobs", out])


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (StoreError('bucket "raw" does not exist', reason="BUCKET_MISSING"), "INVALID_ARGUMENT", "INVALID_SPEC"),
        (Unavailable("the store does not answer", reason="STORE_UNREACHABLE"), "UNAVAILABLE", "STORE_UNREACHABLE"),
    ],
)
async def test_what_the_store_refuses_is_told(api: Api, monkeypatch: pytest.MonkeyPatch, error, code, reason):
    async def is_empty(uri: str) -> bool:
        raise error

    monkeypatch.setattr(api.world.tools.store, "is_empty", is_empty)
    answer = await refusal(create(api, [item() for _ in range(100)]))
    assert (answer.code, answer.reason) == (code, reason)
    assert await nothing_is_stored(api)
