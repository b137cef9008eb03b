"""The client's methods for tenants: limits, members, tokens, grants, reservations, the audit log."""
# Made by scripts/make_sync_client.py from lorafleet/aio/administration.py: change that one, then run `make sync-client`.

from collections.abc import Generator, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, cast

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from lorafleet.sync.base import Base
from lorafleet.sync.connection import Connection
from lorafleet.v1 import access_service_pb2 as pb
from lorafleet.v1.access_service_pb2_grpc import AccessServiceStub


class Administration(Base):
    """The client's methods for administering tenants. All but `create_tenant`, `get_tenant`, `list_tenants` and `update_tenant` act in
    the client's own tenant. Every call raises Unauthenticated, PermissionDenied, NotFound, InvalidInput.
    """

    def __init__(self, connection: Connection, tenant: str) -> None:
        super().__init__(connection, tenant)
        self._access_rpc = cast(Any, AccessServiceStub(connection.channel))  # generated, untyped

    def create_tenant(self, tenant_id: str, tenant: pb.Tenant | None = None) -> pb.Tenant:
        """Create a tenant with the limits of `tenant`. Raises AlreadyExists, also if the response to an earlier attempt was lost."""
        request = pb.CreateTenantRequest(tenant_id=tenant_id, tenant=tenant or pb.Tenant())
        return self.connection.call(self._access_rpc.CreateTenant, request)

    def get_tenant(self, tenant_id: str = "") -> pb.Tenant:
        """A tenant with its numbers of queued and running jobs; default: the client's own."""
        name = f"tenants/{tenant_id}" if tenant_id else self.parent
        return self.connection.call(self._access_rpc.GetTenant, pb.GetTenantRequest(name=name))

    def list_tenants(self, *, page_size: int = 0) -> Generator[pb.Tenant]:
        """The tenants that the caller is a member of; all of them for an administrator of the service."""
        with closing(self._pages(self._access_rpc.ListTenants, pb.ListTenantsRequest(page_size=page_size))) as pages:
            for page in pages:
                for tenant in page.tenants:
                    yield tenant

    def update_tenant(self, tenant: pb.Tenant, fields: Sequence[str]) -> pb.Tenant:
        """Change `fields` of the tenant named by `tenant.name`; a limit that is listed but not set is removed.

        With an etag, only if the tenant has not changed since it had that etag. Raises Aborted.
        """
        request = pb.UpdateTenantRequest(tenant=tenant, update_mask=FieldMask(paths=fields))
        return self.connection.call(self._access_rpc.UpdateTenant, request)

    def set_member(self, principal: str, role: pb.Role) -> pb.Member:
        """Add a member, or change a member's role."""
        request = pb.SetMemberRequest(parent=self.parent, member=pb.Member(principal=principal, role=role))
        return self.connection.call(self._access_rpc.SetMember, request)

    def list_members(self, *, page_size: int = 0) -> Generator[pb.Member]:
        """The members by principal."""
        request = pb.ListMembersRequest(parent=self.parent, page_size=page_size)
        with closing(self._pages(self._access_rpc.ListMembers, request)) as pages:
            for page in pages:
                for member in page.members:
                    yield member

    def remove_member(self, principal: str) -> None:
        """Remove a member."""
        request = pb.RemoveMemberRequest(parent=self.parent, principal=principal)
        self.connection.call(self._access_rpc.RemoveMember, request)

    def create_api_token(self, role: pb.Role, *, display_name: str = "", expire_time: datetime | None = None) -> pb.CreateApiTokenResponse:
        """Create a token for a program; `secret` is returned only here.

        The only call that is not retried, since a lost response would leave a token whose secret nobody has. After Unavailable,
        look for it in `list_api_tokens`.
        """
        token = pb.ApiToken(role=role, display_name=display_name, expire_time=_stamp(expire_time))
        request = pb.CreateApiTokenRequest(parent=self.parent, api_token=token)
        return self.connection.call_once(self._access_rpc.CreateApiToken, request)

    def list_api_tokens(self, *, page_size: int = 0) -> Generator[pb.ApiToken]:
        """The tokens, without their secrets."""
        request = pb.ListApiTokensRequest(parent=self.parent, page_size=page_size)
        with closing(self._pages(self._access_rpc.ListApiTokens, request)) as pages:
            for page in pages:
                for token in page.api_tokens:
                    yield token

    def revoke_api_token(self, token: str) -> pb.ApiToken:
        """Revoke a token for good, by its id or full name."""
        name = token if "/" in token else f"{self.parent}/tokens/{token}"
        return self.connection.call(self._access_rpc.RevokeApiToken, pb.RevokeApiTokenRequest(name=name))

    def add_grant(self, prefix: str, *, may_write: bool = False) -> pb.Grant:
        """Let the tenant read under a prefix of the store, and write with `may_write`."""
        request = pb.AddGrantRequest(parent=self.parent, grant=pb.Grant(prefix=prefix, may_write=may_write))
        return self.connection.call(self._access_rpc.AddGrant, request)

    def list_grants(self, *, page_size: int = 0) -> Generator[pb.Grant]:
        """The grants by prefix."""
        request = pb.ListGrantsRequest(parent=self.parent, page_size=page_size)
        with closing(self._pages(self._access_rpc.ListGrants, request)) as pages:
            for page in pages:
                for grant in page.grants:
                    yield grant

    def remove_grant(self, prefix: str) -> None:
        """Remove a grant; jobs already accepted continue."""
        request = pb.RemoveGrantRequest(parent=self.parent, prefix=prefix)
        self.connection.call(self._access_rpc.RemoveGrant, request)

    def create_reservation(self, reservation_id: str, *, gpus: float, start_time: datetime, end_time: datetime) -> pb.Reservation:
        """Reserve GPUs for the tenant during a window. Raises AlreadyExists, also if the response to an earlier attempt was lost."""
        reservation = pb.Reservation(gpus=gpus, start_time=_stamp(start_time), end_time=_stamp(end_time))
        request = pb.CreateReservationRequest(parent=self.parent, reservation_id=reservation_id, reservation=reservation)
        return self.connection.call(self._access_rpc.CreateReservation, request)

    def list_reservations(self, *, page_size: int = 0) -> Generator[pb.Reservation]:
        """The reservations by id."""
        request = pb.ListReservationsRequest(parent=self.parent, page_size=page_size)
        with closing(self._pages(self._access_rpc.ListReservations, request)) as pages:
            for page in pages:
                for reservation in page.reservations:
                    yield reservation

    def delete_reservation(self, reservation: str) -> None:
        """Release reserved GPUs, by the reservation's id or full name."""
        name = reservation if "/" in reservation else f"{self.parent}/reservations/{reservation}"
        self.connection.call(self._access_rpc.DeleteReservation, pb.DeleteReservationRequest(name=name))

    def list_audit_events(
        self, *, start_time: datetime | None = None, end_time: datetime | None = None, page_size: int = 0
    ) -> Generator[pb.AuditEvent]:
        """Writes and denied writes, newest first."""
        request = pb.ListAuditEventsRequest(
            parent=self.parent, start_time=_stamp(start_time), end_time=_stamp(end_time), page_size=page_size
        )
        with closing(self._pages(self._access_rpc.ListAuditEvents, request)) as pages:
            for page in pages:
                for event in page.audit_events:
                    yield event


def _stamp(time: datetime | None) -> Timestamp | None:
    """An aware time as a protobuf timestamp."""
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
