"""Turns rows of tenants into API messages. Pure."""

from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from lorafleet.v1 import access_service_pb2 as pb
from service.access.identity import Role
from service.db.models import ApiTokenRow, AuditRow, GrantRow, MemberRow, ReservationRow, TenantRow


def time(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def role_of(role: int) -> Role | None:
    """None: not one that there is."""
    return next((one for one in Role if pb.Role.Value(f"ROLE_{one.value}") == role), None)


def role(value: str) -> Any:
    return pb.Role.Value(f"ROLE_{value}")


def etag(row: TenantRow) -> str:
    return f"{row.version}"


def tenant(row: TenantRow) -> pb.Tenant:
    return pb.Tenant(
        name=f"tenants/{row.id}",
        display_name=row.display_name,
        weight=row.weight,
        max_gpus=row.max_gpus,
        max_running_jobs=row.max_running_jobs,
        max_queued_jobs=row.max_queued_jobs,
        max_storage_bytes=row.max_storage_bytes,
        max_requests_per_s=row.max_requests_per_s,
        store_credentials=row.store_credentials,
        is_isolated=row.is_isolated,
        adapter_keep_newest=row.adapter_keep_newest,
        adapter_keep_days=row.adapter_keep_days,
        create_time=time(row.create_time),
        update_time=time(row.update_time),
        etag=etag(row),
    )


def member(row: MemberRow) -> pb.Member:
    return pb.Member(principal=row.principal, role=role(row.role), create_time=time(row.create_time))


def api_token(row: ApiTokenRow) -> pb.ApiToken:
    return pb.ApiToken(
        name=f"tenants/{row.tenant}/tokens/{row.id}",
        display_name=row.display_name,
        role=role(row.role),
        created_by=row.created_by,
        create_time=time(row.create_time),
        expire_time=time(row.expire_time),
        revoke_time=time(row.revoke_time),
    )


def grant(row: GrantRow) -> pb.Grant:
    return pb.Grant(prefix=row.prefix, may_write=row.may_write, create_time=time(row.create_time))


def reservation(row: ReservationRow) -> pb.Reservation:
    return pb.Reservation(
        name=f"tenants/{row.tenant}/reservations/{row.reservation_id}",
        gpus=row.gpus,
        start_time=time(row.start_time),
        end_time=time(row.end_time),
        create_time=time(row.create_time),
    )


def audit_event(row: AuditRow) -> pb.AuditEvent:
    return pb.AuditEvent(
        uid=row.uid,
        time=time(row.time),
        principal=row.principal,
        method=row.method,
        resource=row.resource,
        peer=row.peer,
        code=row.code,
        reason=row.reason,
    )
