"""Serves SignArtifact: URLs for the files of an artifact. Such a URL works without store credentials until it expires."""

import asyncio
import hashlib
from datetime import timedelta

from lorafleet.contract.layout import MANIFEST, JobLayout, join
from lorafleet.errors import FailedPrecondition, NotFound
from lorafleet.v1 import training_service_pb2 as pb
from service.core.resource_names import JobName, invalid
from service.db import jobs
from service.db.database import Database
from service.db.models import JobRow
from service.db.tenants import store_credentials_of
from service.store.client import Store, StoreError
from service.store.uri_prefixes import lies_in
from service.tenancy.messages import time
from service.untrusted.parsing import Parser, Unreadable

DEFAULT_EXPIRE_S = 3600
MAX_EXPIRE_S = 12 * 3600


async def sign_artifact(db: Database, store: Store, name: JobName, expire_s: int, parser: Parser) -> pb.SignArtifactResponse:
    """Raises InvalidInput, NotFound, FailedPrecondition without an artifact or for a store that signs nothing, and Unavailable."""
    if not 0 <= expire_s <= MAX_EXPIRE_S:
        raise invalid("expire_s", f"{expire_s} is not 0 to {MAX_EXPIRE_S}")
    async with db.snapshot() as tx:
        job = await jobs.by_name(tx, name.tenant, name.job_id)
        now = tx.now
    if job is None:
        raise NotFound(f"there is no job {name}", reason="JOB_NOT_FOUND")
    folder, sha256 = _artifact(job)
    store = store.of(await store_credentials_of(db, name.tenant)).within(JobLayout(job.output_uri).root)
    try:
        async with parser.lanes.of(name.tenant):
            text = await store.get(join(folder, MANIFEST))
            if text is None or hashlib.sha256(text).hexdigest() != sha256:
                raise FailedPrecondition(f"{folder} does not hold the artifact that {name} committed", reason="ARTIFACT_CHANGED")
            paths = [MANIFEST, *(await parser.manifest(text)).files]
        lifetime_s = expire_s or DEFAULT_EXPIRE_S
        urls = await asyncio.to_thread(lambda: [store.signed_url(join(folder, path), lifetime_s) for path in paths])
    except (StoreError, Unreadable) as error:
        raise FailedPrecondition(error.message, reason=error.reason) from None
    files = [pb.SignedFile(path=path, url=url) for path, url in zip(paths, urls, strict=True)]
    return pb.SignArtifactResponse(files=files, manifest_sha256=sha256, expire_time=time(now + timedelta(seconds=lifetime_s)))


def _artifact(job: JobRow) -> tuple[str, str]:
    """Folder and digest. A run reports both itself: what is not in the folder that its job was granted is not signed."""
    if not job.artifact_uri or not job.artifact_sha256:
        raise FailedPrecondition(f"{job.name} is {job.state} and has no artifact", reason="NO_ARTIFACT")
    if not lies_in(job.artifact_uri, JobLayout(job.output_uri).root):
        raise FailedPrecondition(f"the artifact of {job.name} is not in its output folder {job.output_uri}", reason="ARTIFACT_ELSEWHERE")
    return job.artifact_uri, job.artifact_sha256
