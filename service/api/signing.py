"""Serves SignArtifact and SignAdapterVersion: URLs for the files of an artifact, which work without store credentials until they expire."""

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from lorafleet.contract.layout import MANIFEST, JobLayout, join
from lorafleet.errors import FailedPrecondition
from lorafleet.v1 import adapter_service_pb2 as adapter_pb
from lorafleet.v1 import training_service_pb2 as pb
from service.control.adapter_facts import VersionState
from service.core.resource_names import AliasName, JobName, VersionName, invalid
from service.db import adapters, jobs
from service.db.database import Database
from service.db.models import JobRow
from service.db.tenants import store_credentials_of
from service.jobs.jobs import not_found
from service.registry.aliases import resolved
from service.store.client import Store, StoreError
from service.store.uri_prefixes import lies_in
from service.tenancy.messages import time
from service.untrusted.parsing import Parser, Unreadable

DEFAULT_EXPIRE_S = 3600
MAX_EXPIRE_S = 12 * 3600


@dataclass(frozen=True, kw_only=True)
class Committed:
    """An artifact: whose it is, where it lies and in which folder its maker was allowed to write, and what was committed."""

    name: str
    tenant: str
    root: str
    folder: str
    sha256: str


async def sign_artifact(db: Database, store: Store, name: JobName, expire_s: int, parser: Parser) -> pb.SignArtifactResponse:
    """Raises InvalidInput, NotFound, FailedPrecondition without an artifact or for a store that signs nothing, and Unavailable."""
    _check_lifetime(expire_s)
    async with db.snapshot() as tx:
        job = await jobs.by_name(tx, name.tenant, name.job_id)
        now = tx.now
        version = None if job is None else await adapters.version_of_job(tx, job)
    if job is None:
        raise not_found(name)
    if version is not None and version.state == VersionState.PURGED.value:
        raise FailedPrecondition(f"the artifact of {name} was deleted for good, with {version.name}", reason="ARTIFACT_PURGED")
    folder, sha256 = _artifact(job)
    made = Committed(name=str(name), tenant=name.tenant, root=JobLayout(job.output_uri).root, folder=folder, sha256=sha256)
    files, end = await _signed(db, store, made, expire_s, parser, now)
    return pb.SignArtifactResponse(files=files, manifest_sha256=sha256, expire_time=end)


async def sign_version(
    db: Database, store: Store, name: VersionName | AliasName, expire_s: int, parser: Parser
) -> adapter_pb.SignAdapterVersionResponse:
    """Raises as `sign_artifact` does."""
    _check_lifetime(expire_s)
    async with db.snapshot() as tx:
        row = await resolved(tx, name)
        now = tx.now
    if row.state == VersionState.PURGED.value:
        raise FailedPrecondition(f"{row.name} is purged: its files are gone", reason="ADAPTER_VERSION_PURGED")
    if not row.manifest_sha256:
        raise FailedPrecondition(
            f"{row.name} is {row.state} and has no files: {row.message or 'it is not copied yet'}", reason="NO_ARTIFACT"
        )
    if not lies_in(row.artifact_uri, row.root_uri):
        raise FailedPrecondition(f"{row.name} does not lie in {row.root_uri}", reason="ARTIFACT_ELSEWHERE")
    sha256 = row.manifest_sha256
    made = Committed(name=row.name, tenant=row.tenant, root=row.root_uri, folder=row.artifact_uri, sha256=sha256)
    files, end = await _signed(db, store, made, expire_s, parser, now)
    return adapter_pb.SignAdapterVersionResponse(files=files, manifest_sha256=sha256, expire_time=end, version=row.name)


async def _signed(
    db: Database, store: Store, made: Committed, expire_s: int, parser: Parser, now: datetime
) -> tuple[list[pb.SignedFile], Timestamp | None]:
    store = store.of(await store_credentials_of(db, made.tenant)).within(made.root)
    try:
        async with parser.lanes.of(made.tenant):
            text = await store.get(join(made.folder, MANIFEST))
            if text is None or hashlib.sha256(text).hexdigest() != made.sha256:
                raise FailedPrecondition(f"{made.folder} does not hold the artifact that {made.name} committed", reason="ARTIFACT_CHANGED")
            paths = [MANIFEST, *(await parser.manifest(text)).files]
        lifetime_s = expire_s or DEFAULT_EXPIRE_S
        urls = await asyncio.to_thread(lambda: [store.signed_url(join(made.folder, path), lifetime_s) for path in paths])
    except (StoreError, Unreadable) as error:
        raise FailedPrecondition(error.message, reason=error.reason) from None
    files = [pb.SignedFile(path=path, url=url) for path, url in zip(paths, urls, strict=True)]
    return files, time(now + timedelta(seconds=lifetime_s))


def _check_lifetime(expire_s: int) -> None:
    if not 0 <= expire_s <= MAX_EXPIRE_S:
        raise invalid("expire_s", f"{expire_s} is not 0 to {MAX_EXPIRE_S}")


def _artifact(job: JobRow) -> tuple[str, str]:
    """Folder and digest. A run reports both itself: what is not in the folder that its job was granted is not signed."""
    if not job.artifact_uri or not job.artifact_sha256:
        raise FailedPrecondition(f"{job.name} is {job.state} and has no artifact", reason="NO_ARTIFACT")
    if not lies_in(job.artifact_uri, JobLayout(job.output_uri).root):
        raise FailedPrecondition(f"the artifact of {job.name} is not in its output folder {job.output_uri}", reason="ARTIFACT_ELSEWHERE")
    return job.artifact_uri, job.artifact_sha256
