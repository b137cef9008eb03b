"""Adapters and versions as tests make them: by a job that succeeds, or straight into the tables."""

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import select

from lorafleet.contract.layout import MANIFEST, JobLayout, join
from lorafleet.v1 import adapter_service_pb2 as pb
from lorafleet.v1 import report_service_pb2 as rpb
from lorafleet.v1 import training_service_pb2 as jobs_pb
from service.core.resource_names import AdapterName, JobName, parse_version
from service.db.database import Database
from service.db.registry_models import AdapterRow, AdapterVersionRow
from service.reconcile.versions import versions_once
from service.registry import looking
from tests.service.world import World, progress

WEIGHTS = {"fox.safetensors": b"weights", "README.md": b"a fox"}


def manifest(files: Mapping[str, bytes] = WEIGHTS, **more: Any) -> bytes:
    listed = {path: {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in files.items()}
    return json.dumps({"format": "lorafleet-artifact-1", "base_digest": "b" * 16, "files": listed, **more}).encode()


async def committed(world: World, name: JobName, text: bytes, files: Mapping[str, bytes] = WEIGHTS) -> rpb.RunEvent:
    """What a trainer leaves in the store at its end, and then reports."""
    folder = JobLayout((await world.job(name)).output_uri).adapter
    for path, data in files.items():
        await world.tools.store.put(join(folder, path), data)
    await world.tools.store.put(join(folder, MANIFEST), text)
    artifact = jobs_pb.Artifact(uri=folder, manifest_sha256=hashlib.sha256(text).hexdigest(), size_bytes=1)
    return rpb.RunEvent(job=str(name), ended=rpb.StyleEnded(outcome=rpb.STYLE_OUTCOME_SUCCEEDED, artifact=artifact))


async def finished(world: World, job_id: str = "fox", text: bytes | None = None, **changes: Any) -> JobName:
    """A job that has ended with an artifact."""
    name, run = await world.running(job_id, **changes)
    await world.report(run, progress(2, held_out_loss=0.25, held_out_loss_base=0.5))
    await world.report(run, await committed(world, name, manifest() if text is None else text))
    world.backend.end(run)
    world.clock.advance(5)
    await world.settle()
    return name


async def read_manifests(world: World) -> None:
    while await versions_once(world.tools):
        pass


async def version(world: World, name: str) -> pb.AdapterVersion:
    """By what follows the tenant: `fox/versions/1`."""
    return await looking.get_version(world.tools.db, parse_version(f"tenants/acme/adapters/{name}"))


async def adapter(world: World, adapter_id: str) -> pb.Adapter:
    return await looking.get_adapter(world.tools.db, AdapterName("acme", adapter_id))


async def make_version(db: Database, adapter_id: str, tenant: str = "acme", *, age_s: float = 0.0, **fields: Any) -> None:
    """The next version of an adapter, with no job and no files."""
    async with db.transaction() as tx:
        at = tx.now - timedelta(seconds=age_s)
        facts = {"family": "", "method": "lora", "rank": 16, "trigger": "", "base_digest": "", "labels": {}, "quality": {}, **fields}
        owner = (AdapterRow.tenant == tenant, AdapterRow.adapter_id == adapter_id)
        row = await tx.session.scalar(select(AdapterRow).where(*owner))
        if row is None:
            uid = uuid4().hex
            row = AdapterRow(uid=uid, tenant=tenant, adapter_id=adapter_id, last_number=0, create_time=at, update_time=at)
            tx.session.add(row)
        row.last_number += 1
        row.newest_version = row.last_number
        for name in ("family", "method", "rank", "trigger", "base_digest", "labels", "quality"):
            setattr(row, name, facts[name])
        await tx.session.flush()
        folder = f"file:///artifacts/{tenant}/{adapter_id}/{row.newest_version}"
        place = {"root_uri": folder, "artifact_uri": f"{folder}/adapter", "manifest_sha256": "ab" * 32}
        which = {"adapter_uid": row.uid, "tenant": tenant, "adapter_id": adapter_id, "number": row.newest_version}
        tx.session.add(AdapterVersionRow(uid=uuid4().hex, **which, create_time=at, **{"state": "READY", **place, **facts}))
