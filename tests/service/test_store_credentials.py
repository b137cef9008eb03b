"""Tenants' own store credentials: named by reference, handed to runs, shared with nobody, kept nowhere."""

from pathlib import Path

import pytest

from lorafleet.contract import layout
from lorafleet.contract.run_manifest import RunManifest
from lorafleet.errors import InvalidInput, Unavailable
from lorafleet.v1 import access_service_pb2 as pb
from service.access.authorization import Access
from service.backends.base import RunRef, RunRequest
from service.backends.http import Http
from service.backends.local_ray import LocalRay
from service.backends.ray_jobs import JoinedRay, RayJobs
from service.control.admission import Limits
from service.core.resource_names import JobName, parse_job
from service.db.models import TableBase, TenantRow
from service.jobs.creation import NewJob
from service.jobs.jobs import Jobs
from service.planning.base_shapes import ShapeCache
from service.planning.planner import Planner, Policy
from service.planning.queued_jobs import Candidates
from service.store.client import Store
from service.store.credentials import CredentialsFile, parse
from service.tenancy.tenants import Tenants
from tests.service.access.members import make_tenant
from tests.service.backends.fake_ray import TOKEN, FakeRay
from tests.service.backends.test_contract import joined
from tests.service.world import World, progress, succeeded
from trainer import store_credentials

SECRET = "acme-secret-that-nobody-may-see"
PROFILES = f"""
[acme-store]
aws_access_key_id = AKACME
aws_secret_access_key = {SECRET}
[next]
aws_access_key_id = AKNEXT
aws_secret_access_key = {SECRET}-next
aws_session_token = {SECRET}-token
"""
ENV = {"AWS_ACCESS_KEY_ID": "AKACME", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": ""}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "credentials"
    path.write_text(PROFILES)
    return path


@pytest.fixture
async def acme(world: World, file: Path) -> World:
    """A service with the file, and a tenant that has a profile of it."""
    await make_tenant(world.tools.db, "acme", store_credentials="acme-store")
    store = Store(CredentialsFile(file))
    world.with_tools(store=store, candidates=Candidates(Planner(ShapeCache(store, world.clock), Policy())))
    world.jobs = Jobs(world.tools.db, store, world.tools.locations.artifacts_uri, world.tools.stop)
    return world


async def submit(world: World, tenant: str, **changes) -> JobName:
    job = await world.jobs.create(NewJob(tenant=tenant, job_id="", request_id="", spec=world.spec(**changes)))
    return parse_job(job.name)


async def refer(world: World, reference: str) -> None:
    async with world.tools.db.transaction() as tx:
        row = await tx.session.get(TenantRow, "acme")
        assert row is not None
        row.store_credentials = reference


def test_every_mistake_of_the_file_is_told_and_no_value():
    text = f"[a]\naws_access_key_id = {SECRET}\n[b]\naws_access_key_id = x\naws_secret_access_key = {SECRET}\nrole_arn = {SECRET}\n"
    with pytest.raises(InvalidInput) as refused:
        parse(text)
    assert refused.value.message.splitlines() == [
        "--store-credentials: [a] has no aws_secret_access_key",
        "--store-credentials: [b] has role_arn; it takes aws_access_key_id, aws_secret_access_key, aws_session_token alone",
    ]
    with pytest.raises(InvalidInput) as refused:
        parse(f"{SECRET}\n")
    assert SECRET not in refused.value.message


def test_a_changed_file_counts_at_once_and_a_broken_one_is_waited_for(file: Path):
    credentials = CredentialsFile(file)
    before = credentials.get("acme-store")
    file.write_text(PROFILES.replace("AKACME", "AKOTHER"))
    assert (before.access_key_id, credentials.get("acme-store").access_key_id) == ("AKACME", "AKOTHER")
    assert SECRET not in f"{before!r} {before}"
    for broken in ("[acme-store]\n", PROFILES.replace("acme-store", "other")):
        file.write_text(broken)
        with pytest.raises(Unavailable) as refused:
            credentials.get("acme-store")
        assert refused.value.reason == "STORE_CREDENTIALS_MISSING"
    file.unlink()
    with pytest.raises(Unavailable):
        credentials.get("acme-store")


async def test_a_run_gets_its_tenants_credentials_and_finds_all_it_needs_in_the_tenants_folder(acme: World):
    await submit(acme, "acme")
    await submit(acme, "globex", scheduling={"sharing": "nobody"})
    acme.with_tools(limits=Limits(max_running_runs=2))
    await acme.settle()
    by_env = {tuple(env.items()): run for run, env in acme.backend.store_envs.items()}
    assert set(by_env) == {tuple(ENV.items()), ()}, "the other tenant's run has the service's own"
    home = layout.tenant_root(acme.tools.locations.artifacts_uri, "acme")
    text = await acme.tools.store.get(layout.run_manifest(home, by_env[tuple(ENV.items())]))
    manifest = RunManifest.model_validate_json(text or b"")
    assert manifest.cache_uri == f"{home}/cache"
    assert manifest.pack[0].output_uri.startswith(f"{home}/jobs/")


async def test_the_secret_lies_in_no_table_no_manifest_and_no_log(acme: World, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG")
    name, run = await acme.running("one")
    await acme.report(run, succeeded())
    assert await acme.state(name) == "SUCCEEDED"
    assert SECRET in acme.backend.store_envs[run]["AWS_SECRET_ACCESS_KEY"]
    async with acme.tools.db.snapshot() as tx:
        rows = [str(row) for table in TableBase.metadata.sorted_tables for row in await tx.session.execute(table.select())]
    assert any("acme-store" in row for row in rows)
    assert not any(SECRET in row for row in rows)
    written = [path.read_bytes() for path in (acme.folder / "artifacts").rglob("*") if path.is_file()]
    assert written
    assert not any(SECRET.encode() in text for text in written)
    assert SECRET not in caplog.text


async def test_tenants_of_other_credentials_are_in_no_pack_of_it(acme: World):
    for tenant in ("acme", "globex", "acme", "initech"):
        await submit(acme, tenant, scheduling={"sharing": "anyone"})
    await acme.settle()
    acme.with_tools(limits=Limits(max_running_runs=2))
    await acme.settle()
    packs = {}
    for run in acme.backend.launches:
        uri = layout.run_manifest(acme.tools.locations.artifacts_uri, run)
        if acme.backend.store_envs[run]:
            uri = layout.run_manifest(layout.tenant_root(acme.tools.locations.artifacts_uri, "acme"), run)
        manifest = RunManifest.model_validate_json(await acme.tools.store.get(uri) or b"")
        packs[run] = {parse_job(style.job).tenant for style in manifest.pack}
    assert sorted(map(sorted, packs.values())) == [["acme"], ["globex", "initech"]]


async def test_two_tenants_of_the_same_credentials_share_no_process_either(acme: World):
    await make_tenant(acme.tools.db, "globex", store_credentials="acme-store")
    names = [await submit(acme, tenant, scheduling={"sharing": "anyone"}) for tenant in ("acme", "globex")]
    await acme.settle()
    assert [await acme.state(name) for name in names] == ["STARTING", "QUEUED"]


async def test_warm_workers_take_no_run_with_other_credentials_than_they_have(acme: World):
    _, run = await acme.running("one")
    await acme.report(run, succeeded())
    await acme.report(run, source="worker-0", idle=True)
    await submit(acme, "acme")
    await acme.settle()
    told = (await acme.report(run, source="worker-0", idle=True)).next_run
    assert told.manifest_uri.startswith(layout.tenant_root(acme.tools.locations.artifacts_uri, "acme"))
    assert await acme.tools.store.exists(told.manifest_uri)
    await acme.report(told.run, progress(1), succeeded())
    await acme.report(told.run, source="worker-0", idle=True)

    await refer(acme, "next")
    acme.with_tools(limits=Limits(max_running_runs=2))
    await submit(acme, "acme")
    await acme.settle()
    assert acme.backend.launches[:-1] == [run]
    assert acme.backend.store_envs[acme.backend.launches[-1]]["AWS_ACCESS_KEY_ID"] == "AKNEXT"


async def test_a_run_whose_credentials_are_gone_waits_for_them(acme: World, file: Path):
    name = await submit(acme, "acme")
    _write(file, "")
    await acme.settle()
    assert (await acme.state(name), acme.backend.launches) == ("QUEUED", [])
    assert "acme-store" in (await acme.job(name)).message
    assert (await acme.job(name)).reason == "STORE_CREDENTIALS_MISSING"
    other = await submit(acme, "beta")
    await acme.settle()
    assert await acme.state(other) == "STARTING", "only its jobs wait"
    acme.backend.end(acme.backend.launches.pop(), "RUN_LOST")
    _write(file, PROFILES)
    acme.clock.advance(5)
    await acme.settle()
    assert len(acme.backend.launches) == 1


def _write(file: Path, text: str) -> None:
    file.write_text(text)


async def test_a_profile_is_given_to_a_tenant(acme: World, file: Path):
    tenants = Tenants(acme.tools.db, Access(acme.tools.db), CredentialsFile(file))
    changed = await tenants.update("acme", pb.Tenant(store_credentials="next"), ["store_credentials"])
    assert changed.store_credentials == "next"
    with pytest.raises(InvalidInput, match=r"'other' is not a profile .*; there: acme-store, next$"):
        await tenants.update("acme", pb.Tenant(store_credentials="other"), ["store_credentials"])


RUN = RunRequest(run_id="run-1", instance="ours", manifest_uri="s3://b/run.json", token="secret-token", store_env=ENV)


async def test_a_joined_ray_gets_them_in_the_runs_environment_and_nowhere_else():
    ray = FakeRay()
    await joined(ray).launch(RUN)
    [body] = ray.submissions
    assert body["runtime_env"] == {"env_vars": {"LORAFLEET_RUN_TOKEN": "secret-token", **ENV}}
    assert SECRET not in str({**body, "runtime_env": None})
    assert SECRET not in repr(RUN)


def test_a_local_ray_gets_them_in_a_file_that_only_we_may_read(tmp_path: Path):
    submission = LocalRay(tmp_path, Http(loopback=True)).submission(RUN)
    path = tmp_path / "runs" / "run-1" / "store-credentials"
    assert submission.entrypoint.endswith(f"--store-credentials-file {path}")
    assert SECRET not in str(submission)
    assert path.stat().st_mode & 0o777 == 0o600
    assert store_credentials.given(str(path)) == ENV


class WithFiles(JoinedRay):
    """A Ray that is there, with files for its drivers as a Ray of our own has them."""

    def __init__(self, state_dir: Path, http: Http) -> None:
        super().__init__("http://ray:8265", TOKEN, http)
        local = LocalRay(state_dir, http)
        self.submission, self.forget = local.submission, local.forget


async def test_what_a_driver_was_handed_is_gone_once_it_is_gone(tmp_path: Path):
    ray = FakeRay()
    http = Http(transport=ray.transport())
    backend = RayJobs(WithFiles(tmp_path, http), http)
    run = RunRef(run_id=RUN.run_id, handle=await backend.launch(RUN))
    folder = tmp_path / "runs" / RUN.run_id
    await backend.forget(run)
    assert {path.name for path in folder.iterdir()} == {"token", "store-credentials"}, "its driver lives"
    ray.jobs[RUN.run_id].update(status="SUCCEEDED", driver_exit_code=0)
    await backend.forget(run)
    assert not folder.exists()
    await backend.close()
