"""Turns rows of the registry into API messages. Pure: what the wire shows of an adapter, and nothing else."""

from collections.abc import Mapping
from typing import Any

from lorafleet.v1 import adapter_service_pb2 as pb
from lorafleet.v1 import training_service_pb2 as jobs_pb
from service.db.registry_models import AdapterRow, AdapterVersionRow
from service.tenancy.messages import time


def adapter_message(row: AdapterRow) -> pb.Adapter:
    """The adapter as users see it."""
    return pb.Adapter(
        name=row.name,
        uid=row.uid,
        newest_version=row.newest_version,
        **_described(row),
        create_time=time(row.create_time),
        update_time=time(row.update_time),
        etag=adapter_etag(row),
    )


def version_message(row: AdapterVersionRow, files: Mapping[str, Any] | None = None) -> pb.AdapterVersion:
    """The version as users see it; with its files where they are given."""
    return pb.AdapterVersion(
        name=row.name,
        uid=row.uid,
        number=row.number,
        state=f"ADAPTER_VERSION_STATE_{row.state}",
        reason=row.reason,
        message=row.message,
        artifact=jobs_pb.Artifact(uri=row.artifact_uri, manifest_sha256=row.manifest_sha256, size_bytes=row.size_bytes or 0),
        files=[pb.AdapterFile(path=path, **file) for path, file in (files or {}).items()],
        **_described(row),
        job="" if row.job_id is None else f"tenants/{row.tenant}/jobs/{row.job_id}",
        parents=row.parents or [],
        created_by=row.created_by,
        create_time=time(row.create_time),
    )


def adapter_etag(row: AdapterRow) -> str:
    """Changes with every change of the adapter (AIP-154)."""
    return f"{row.uid}-{row.version}"


def _described(row: AdapterRow | AdapterVersionRow) -> dict[str, Any]:
    names = ("family", "method", "rank", "trigger", "base_digest", "labels", "quality")
    return {name: getattr(row, name) for name in names}
