"""Turns rows of the registry into API messages. Pure: what the wire shows of an adapter, and nothing else."""

from collections.abc import Mapping
from typing import Any

from lorafleet.v1 import adapter_service_pb2 as pb
from lorafleet.v1 import training_service_pb2 as jobs_pb
from service.core.resource_names import AliasName
from service.db.registry_models import AdapterAliasRow, AdapterRow, AdapterVersionRow
from service.tenancy.messages import time


def adapter_message(row: AdapterRow, aliases: Mapping[str, int]) -> pb.Adapter:
    """The adapter as users see it. `aliases`: numbers of versions by the aliases that point to them."""
    return pb.Adapter(
        name=row.name,
        uid=row.uid,
        newest_version=row.newest_version,
        **_described(row),
        create_time=time(row.create_time),
        update_time=time(row.update_time),
        etag=adapter_etag(row),
        aliases=aliases,
        delete_time=time(row.delete_time),
        purge_time=time(row.purge_at),
        retention=_retention(row),
    )


def version_message(row: AdapterVersionRow, aliases: Mapping[str, int], files: Mapping[str, Any] | None = None) -> pb.AdapterVersion:
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
        source_uri=row.source_uri or "",
        parents=[each.get("name") or each.get("uri", "") for each in row.parents or []],
        made_of=[pb.AdapterParent(**each) for each in row.parents or []],
        created_by=row.created_by,
        create_time=time(row.create_time),
        aliases=sorted(alias for alias, number in aliases.items() if number == row.number),
        delete_time=time(row.delete_time),
        purge_time=time(row.purge_at),
    )


def _retention(row: AdapterRow) -> pb.RetentionRule | None:
    rule = pb.RetentionRule(keep_newest=row.keep_newest, keep_days=row.keep_days)
    return rule if row.keep_newest or row.keep_days else None


def alias_message(row: AdapterAliasRow, name: AliasName) -> pb.AdapterAlias:
    """The alias as users see it."""
    return pb.AdapterAlias(
        name=str(name),
        version=row.number,
        previous_version=row.previous,
        updated_by=row.updated_by,
        update_time=time(row.update_time),
        etag=alias_etag(row),
    )


def alias_etag(row: AdapterAliasRow) -> str:
    """Changes with every move (AIP-154). One that was taken away and made anew is another: its time tells them apart."""
    return f"{row.version}-{int(row.update_time.timestamp() * 1e6):x}"


def adapter_etag(row: AdapterRow) -> str:
    """Changes with every change of the adapter (AIP-154)."""
    return f"{row.uid}-{row.version}"


def _described(row: AdapterRow | AdapterVersionRow) -> dict[str, Any]:
    names = ("family", "method", "rank", "trigger", "base_digest", "labels", "quality")
    return {name: getattr(row, name) for name in names}
