"""Serves AccessService: each method checks the request and the caller, makes one call and returns. Errors are raised, never caught."""

from collections.abc import Callable, Sequence
from typing import Any

from lorafleet.v1 import access_service_pb2 as pb
from lorafleet.v1 import access_service_pb2_grpc as rpc
from service.access.authorization import Access
from service.access.identity import caller
from service.access.permissions import Permission
from service.api.errors import Context
from service.api.lists import paging
from service.core.resource_names import check_job_id, invalid, parse_held, parse_tenant
from service.db import audit
from service.db.database import Database
from service.db.job_pages import PageKey
from service.db.models import ApiTokenRow, GrantRow, MemberRow, ReservationRow
from service.db.retrying import again
from service.store.credentials import CredentialsFile
from service.tenancy import messages
from service.tenancy.entitlements import Holdings, moment
from service.tenancy.tenants import Tenants


class AccessServicer(rpc.AccessServiceServicer):
    """The public API of tenants."""

    def __init__(self, access: Access, db: Database, credentials: CredentialsFile | None = None) -> None:
        self._access = access
        self._db = db
        self._tenants = Tenants(db, access, credentials or CredentialsFile())
        self._holdings = Holdings(db)

    async def CreateTenant(self, request: pb.CreateTenantRequest, context: Context) -> pb.Tenant:
        self._access.require_admin()
        return await self._tenants.create(check_job_id(request.tenant_id, "tenant_id"), request.tenant)

    async def GetTenant(self, request: pb.GetTenantRequest, context: Context) -> pb.Tenant:
        return await self._tenants.get(await self._for(Permission.VIEW, request.name, "name"))

    async def ListTenants(self, request: pb.ListTenantsRequest, context: Context) -> pb.ListTenantsResponse:
        who, size = caller(), paging.size_of(request.page_size)
        rows = await self._tenants.page(who, behind=_behind(("tenants",), request.page_token), size=size + 1)
        shown, last = _page([messages.tenant(row) for row in rows[:size]], rows)
        token = "" if last is None else _token(("tenants",), last.id)
        return pb.ListTenantsResponse(tenants=shown, next_page_token=token)

    async def UpdateTenant(self, request: pb.UpdateTenantRequest, context: Context) -> pb.Tenant:
        tenant = await self._for(Permission.ADMINISTER, request.tenant.name, "tenant.name")
        return await again(lambda: self._tenants.update(tenant, request.tenant, list(request.update_mask.paths)))

    async def SetMember(self, request: pb.SetMemberRequest, context: Context) -> pb.Member:
        tenant = await self._for(Permission.MANAGE, request.parent)
        if (role := messages.role_of(request.member.role)) is None:
            raise invalid("member.role", "is not set")
        return await self._tenants.set_member(tenant, request.member.principal, role)

    async def ListMembers(self, request: pb.ListMembersRequest, context: Context) -> pb.ListMembersResponse:
        shown, token = await self._page(request, MemberRow, MemberRow.principal, Permission.VIEW, messages.member)
        return pb.ListMembersResponse(members=shown, next_page_token=token)

    async def RemoveMember(self, request: pb.RemoveMemberRequest, context: Context) -> pb.RemoveMemberResponse:
        await self._tenants.remove_member(await self._for(Permission.MANAGE, request.parent), request.principal)
        return pb.RemoveMemberResponse()

    async def CreateApiToken(self, request: pb.CreateApiTokenRequest, context: Context) -> pb.CreateApiTokenResponse:
        who = await self._access.require(Permission.MANAGE, parse_tenant(request.parent))
        row, text = await self._holdings.create_token(who, request.api_token)
        return pb.CreateApiTokenResponse(api_token=messages.api_token(row), secret=text)

    async def ListApiTokens(self, request: pb.ListApiTokensRequest, context: Context) -> pb.ListApiTokensResponse:
        shown, token = await self._page(request, ApiTokenRow, ApiTokenRow.id, Permission.MANAGE, messages.api_token)
        return pb.ListApiTokensResponse(api_tokens=shown, next_page_token=token)

    async def RevokeApiToken(self, request: pb.RevokeApiTokenRequest, context: Context) -> pb.ApiToken:
        tenant, token_id = parse_held(request.name, "tokens")
        await self._access.require(Permission.MANAGE, tenant)
        return messages.api_token(await self._holdings.revoke_token(tenant, token_id))

    async def AddGrant(self, request: pb.AddGrantRequest, context: Context) -> pb.Grant:
        tenant = await self._for(Permission.ADMINISTER, request.parent)
        return messages.grant(await self._holdings.add_grant(tenant, request.grant))

    async def ListGrants(self, request: pb.ListGrantsRequest, context: Context) -> pb.ListGrantsResponse:
        shown, token = await self._page(request, GrantRow, GrantRow.prefix, Permission.VIEW, messages.grant)
        return pb.ListGrantsResponse(grants=shown, next_page_token=token)

    async def RemoveGrant(self, request: pb.RemoveGrantRequest, context: Context) -> pb.RemoveGrantResponse:
        await self._holdings.remove_grant(await self._for(Permission.ADMINISTER, request.parent), request.prefix)
        return pb.RemoveGrantResponse()

    async def CreateReservation(self, request: pb.CreateReservationRequest, context: Context) -> pb.Reservation:
        tenant = await self._for(Permission.ADMINISTER, request.parent)
        reservation_id = check_job_id(request.reservation_id, "reservation_id")
        return messages.reservation(await self._holdings.create_reservation(tenant, reservation_id, request.reservation))

    async def ListReservations(self, request: pb.ListReservationsRequest, context: Context) -> pb.ListReservationsResponse:
        shown, token = await self._page(request, ReservationRow, ReservationRow.reservation_id, Permission.VIEW, messages.reservation)
        return pb.ListReservationsResponse(reservations=shown, next_page_token=token)

    async def DeleteReservation(self, request: pb.DeleteReservationRequest, context: Context) -> pb.DeleteReservationResponse:
        tenant, reservation_id = parse_held(request.name, "reservations")
        await self._access.require(Permission.ADMINISTER, tenant)
        await self._holdings.delete_reservation(tenant, reservation_id)
        return pb.DeleteReservationResponse()

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Context) -> pb.ListAuditEventsResponse:
        tenant = await self._for(Permission.MANAGE, request.parent)
        start, end, size = (
            moment("start_time", request, "start_time"),
            moment("end_time", request, "end_time"),
            paging.size_of(request.page_size),
        )
        query = (request.parent, "audit", str(start), str(end))
        behind = paging.to_key(paging.place(query, request.page_token)) if request.page_token else None
        async with self._db.snapshot() as tx:
            rows = await audit.page(tx, tenant, start=start, end=end, behind=behind, size=size + 1)
        shown, last = _page([messages.audit_event(row) for row in rows[:size]], rows)
        token = "" if last is None else paging.token(query, **paging.of_key(PageKey(last.time, last.uid)))
        return pb.ListAuditEventsResponse(audit_events=shown, next_page_token=token)

    async def _for(self, permission: Permission, name: str, field: str = "parent") -> str:
        """The tenant's id, once the caller is known to be allowed that."""
        tenant = parse_tenant(name, field)
        await self._access.require(permission, tenant)
        return tenant

    async def _page(self, request: Any, kind: Any, key: Any, permission: Permission, shown: Callable[[Any], Any]) -> tuple[list[Any], str]:
        """A page of what a tenant has, as messages, and the token of the next."""
        tenant, size = await self._for(permission, request.parent), paging.size_of(request.page_size)
        query = (request.parent, kind.__tablename__)
        rows = await self._holdings.page(kind, key, tenant, behind=_behind(query, request.page_token), size=size + 1)
        messages_of_page, last = _page([shown(row) for row in rows[:size]], rows)
        return messages_of_page, "" if last is None else _token(query, getattr(last, key.key))


def _page(shown: list[Any], rows: Sequence[Any]) -> tuple[list[Any], Any]:
    """As many of them as a message has room for, and the row of the last when there are more."""
    num = paging.fitting(shown)
    return shown[:num], rows[num - 1] if len(rows) > num else None


def _behind(query: tuple[str, ...], page_token: str) -> str:
    return paging.to_text(paging.place(query, page_token)) if page_token else ""


def _token(query: tuple[str, ...], last: str) -> str:
    return paging.token(query, behind=last)
