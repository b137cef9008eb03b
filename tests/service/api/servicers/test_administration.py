"""AccessService: tenants and what they have, through the API."""

import pytest

from lorafleet.v1 import access_service_pb2 as pb
from service.access import api_tokens
from service.access.identity import OPEN, Identity, Role
from service.api.lists import paging
from service.db.models import ApiTokenRow
from tests.service.access.members import make_member, make_tenant
from tests.service.api import batch_requests
from tests.service.api.refusals import refusal
from tests.service.api.served import Api

ACME = "tenants/acme"


@pytest.fixture
async def acme(api: Api) -> Api:
    await make_tenant(api.world.tools.db, "acme")
    return api


async def test_a_tenant_is_created_read_and_listed(api: Api):
    wanted = pb.Tenant(display_name="Acme", max_gpus=4, is_isolated=True)
    made = await api.access.CreateTenant(pb.CreateTenantRequest(tenant_id="acme", tenant=wanted))
    assert (made.name, made.max_gpus, made.weight, made.HasField("max_queued_jobs")) == (ACME, 4, 1, False)
    await api.jobs.CreateTrainingJob(api.request())
    found = await api.access.GetTenant(pb.GetTenantRequest(name=ACME))
    assert (found.etag, found.num_queued_jobs, found.num_running_jobs) == (made.etag, 1, 0)
    again = await refusal(api.access.CreateTenant(pb.CreateTenantRequest(tenant_id="acme")))
    assert (again.code, again.reason) == ("ALREADY_EXISTS", "TENANT_ID_TAKEN")
    for name in ("beta", "delta"):
        await make_tenant(api.world.tools.db, name)
    page = await api.access.ListTenants(pb.ListTenantsRequest(page_size=2))
    rest = await api.access.ListTenants(pb.ListTenantsRequest(page_size=2, page_token=page.next_page_token))
    assert [one.name for one in [*page.tenants, *rest.tenants]] == [ACME, "tenants/beta", "tenants/delta"]
    assert not rest.next_page_token


async def test_every_bad_limit_is_told(api: Api):
    wanted = pb.Tenant(weight=0, max_gpus=-1, max_running_jobs=-1)
    answer = await refusal(api.access.CreateTenant(pb.CreateTenantRequest(tenant_id="acme", tenant=wanted)))
    assert set(answer.fields) == {"tenant.weight", "tenant.max_gpus", "tenant.max_running_jobs"}


async def test_an_update_changes_what_the_mask_names_and_wants_the_newest_etag(acme: Api):
    def request(tenant: pb.Tenant, *paths: str) -> pb.UpdateTenantRequest:
        asked = pb.UpdateTenantRequest(tenant=tenant)
        asked.update_mask.paths.extend(paths)
        return asked

    old = await acme.access.GetTenant(pb.GetTenantRequest(name=ACME))
    one = await acme.access.UpdateTenant(request(pb.Tenant(name=ACME, max_gpus=2, weight=3, etag=old.etag), "max_gpus"))
    assert (one.max_gpus, one.weight) == (2, 1)
    stale = await refusal(acme.access.UpdateTenant(request(pb.Tenant(name=ACME, max_gpus=9, etag=old.etag), "max_gpus")))
    assert (stale.code, stale.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert not (await acme.access.UpdateTenant(request(pb.Tenant(name=ACME), "max_gpus"))).HasField("max_gpus")
    for paths in ((), ("name",), ("etag", "weight")):
        assert list((await refusal(acme.access.UpdateTenant(request(pb.Tenant(name=ACME), *paths)))).fields) == ["update_mask"]


async def test_only_a_profile_that_there_is_can_be_given_to_a_tenant(acme: Api):
    def request(reference: str) -> pb.UpdateTenantRequest:
        asked = pb.UpdateTenantRequest(tenant=pb.Tenant(name=ACME, store_credentials=reference))
        asked.update_mask.paths.append("store_credentials")
        return asked

    answer = await refusal(acme.access.UpdateTenant(request("acme-store")))
    assert answer.fields == {"tenant.store_credentials": "'acme-store' is not a profile of the file of --store-credentials; there: none"}
    assert (await acme.access.UpdateTenant(request(""))).store_credentials == ""


async def test_only_an_administrator_makes_tenants_and_others_see_their_own(acme: Api):
    await make_tenant(acme.world.tools.db, "other")
    await make_member(acme.world.tools.db, "acme", "ada", Role.ADMIN)
    for identity in (Identity(principal="ada"), Identity(principal="token:1", tenant="acme", role=Role.ADMIN)):
        acme.caller.identity = identity
        assert (await refusal(acme.access.CreateTenant(pb.CreateTenantRequest(tenant_id="mine")))).code == "PERMISSION_DENIED"
        assert [one.name for one in (await acme.access.ListTenants(pb.ListTenantsRequest())).tenants] == [ACME]
        grant = pb.AddGrantRequest(parent=ACME, grant=pb.Grant(prefix="s3://raw", may_write=True))
        assert (await refusal(acme.access.AddGrant(grant))).code == "PERMISSION_DENIED"


async def test_members_come_change_and_go_at_once(acme: Api):
    async def become(role: pb.Role) -> None:
        acme.caller.identity = OPEN
        await acme.access.SetMember(pb.SetMemberRequest(parent=ACME, member=pb.Member(principal="bob", role=role)))
        acme.caller.identity = Identity(principal="bob")

    await become(pb.ROLE_VIEWER)
    assert (await refusal(acme.jobs.CreateTrainingJob(acme.request()))).code == "PERMISSION_DENIED"
    await become(pb.ROLE_ADMIN)
    assert [one.principal for one in (await acme.access.ListMembers(pb.ListMembersRequest(parent=ACME))).members] == ["bob"]
    await acme.access.RemoveMember(pb.RemoveMemberRequest(parent=ACME, principal="bob"))
    assert (await refusal(acme.access.ListMembers(pb.ListMembersRequest(parent=ACME)))).code == "NOT_FOUND"
    acme.caller.identity = OPEN
    assert (await refusal(acme.access.RemoveMember(pb.RemoveMemberRequest(parent=ACME, principal="bob")))).reason == "MEMBER_NOT_FOUND"
    bad = pb.SetMemberRequest(parent=ACME, member=pb.Member(principal="bob"))
    assert list((await refusal(acme.access.SetMember(bad))).fields) == ["member.role"]


async def test_a_tokens_secret_is_told_once_and_kept_nowhere(acme: Api):
    request = pb.CreateApiTokenRequest(parent=ACME, api_token=pb.ApiToken(display_name="ci", role=pb.ROLE_SUBMITTER))
    made = await acme.access.CreateApiToken(request)
    token_id, secret = api_tokens.parts(made.secret) or ("", "")
    assert made.api_token.name == f"{ACME}/tokens/{token_id}"
    async with acme.world.tools.db.snapshot() as tx:
        row = await tx.session.get_one(ApiTokenRow, token_id)
    assert api_tokens.is_secret_of(secret, row.secret_sha256)
    assert secret not in "".join(str(value) for value in vars(row).values())
    listed = await acme.access.ListApiTokens(pb.ListApiTokensRequest(parent=ACME))
    assert secret not in str(listed)
    for _ in range(2):
        revoked = await acme.access.RevokeApiToken(pb.RevokeApiTokenRequest(name=made.api_token.name))
        assert revoked.HasField("revoke_time")
    await make_tenant(acme.world.tools.db, "other")
    answer = await refusal(acme.access.RevokeApiToken(pb.RevokeApiTokenRequest(name=f"tenants/other/tokens/{token_id}")))
    assert answer.reason == "API_TOKEN_NOT_FOUND"


async def test_nobody_gives_a_token_more_than_it_has_itself(acme: Api):
    acme.caller.identity = Identity(principal="token:1", tenant="acme", role=Role.OPERATOR)
    request = pb.CreateApiTokenRequest(parent=ACME, api_token=pb.ApiToken(role=pb.ROLE_VIEWER))
    assert (await refusal(acme.access.CreateApiToken(request))).code == "PERMISSION_DENIED"


async def made_by(api: Api, who: Identity, role: pb.Role = pb.ROLE_SUBMITTER) -> str:
    """The id of a token that somebody made."""
    api.caller.identity = who
    made = await api.access.CreateApiToken(pb.CreateApiTokenRequest(parent=ACME, api_token=pb.ApiToken(role=role)))
    api.caller.identity = OPEN
    return made.api_token.name.rpartition("/")[2]


async def ended(api: Api) -> set[str]:
    listed = await api.access.ListApiTokens(pb.ListApiTokensRequest(parent=ACME))
    return {token.name.rpartition("/")[2] for token in listed.api_tokens if token.HasField("revoke_time")}


async def be_member(api: Api, principal: str, role: pb.Role) -> None:
    await api.access.SetMember(pb.SetMemberRequest(parent=ACME, member=pb.Member(principal=principal, role=role)))


BOB = Identity(principal="bob")


async def test_tokens_end_with_their_makers_membership(acme: Api):
    for principal in ("bob", "ada"):
        await be_member(acme, principal, pb.ROLE_ADMIN)
    own, others = await made_by(acme, BOB), await made_by(acme, Identity(principal="ada"))
    await acme.access.RemoveMember(pb.RemoveMemberRequest(parent=ACME, principal="bob"))
    assert await ended(acme) == {own}
    assert others not in await ended(acme)


async def test_tokens_that_may_more_than_their_maker_end_when_it_loses_a_role(acme: Api):
    await be_member(acme, "bob", pb.ROLE_ADMIN)
    kept, lost = await made_by(acme, BOB, pb.ROLE_VIEWER), await made_by(acme, BOB, pb.ROLE_ADMIN)
    await be_member(acme, "bob", pb.ROLE_VIEWER)
    assert await ended(acme) == {lost}
    assert kept not in await ended(acme)


async def test_a_token_that_a_lost_token_made_gives_nobody_rights_back(acme: Api):
    await be_member(acme, "bob", pb.ROLE_ADMIN)
    first = await made_by(acme, BOB, pb.ROLE_ADMIN)
    second = await made_by(acme, Identity(principal=f"token:{first}", tenant="acme", role=Role.ADMIN), pb.ROLE_VIEWER)
    await be_member(acme, "bob", pb.ROLE_OPERATOR)
    assert await ended(acme) == {first, second}


async def test_a_revoked_token_takes_what_was_made_with_it_along(acme: Api):
    first = await made_by(acme, OPEN, pb.ROLE_ADMIN)
    second = await made_by(acme, Identity(principal=f"token:{first}", tenant="acme", role=Role.ADMIN))
    await acme.access.RevokeApiToken(pb.RevokeApiTokenRequest(name=f"{ACME}/tokens/{first}"))
    assert await ended(acme) == {first, second}


async def test_a_token_that_was_revoked_a_moment_ago_makes_none(acme: Api):
    first = await made_by(acme, OPEN, pb.ROLE_ADMIN)
    await acme.access.RevokeApiToken(pb.RevokeApiTokenRequest(name=f"{ACME}/tokens/{first}"))
    acme.caller.identity = Identity(principal=f"token:{first}", tenant="acme", role=Role.ADMIN)  # believed for some seconds
    request = pb.CreateApiTokenRequest(parent=ACME, api_token=pb.ApiToken(role=pb.ROLE_ADMIN))
    assert (await refusal(acme.access.CreateApiToken(request))).code == "PERMISSION_DENIED"


async def test_a_spec_names_only_what_is_granted(acme: Api):
    folder = acme.world.folder
    await acme.access.AddGrant(pb.AddGrantRequest(parent=ACME, grant=pb.Grant(prefix=f"file://{folder}/base")))
    answer = await refusal(acme.jobs.CreateTrainingJob(acme.request()))
    told = (
        f'file://{folder}/pictures is not granted to tenant "acme"; granted: file://{folder}/artifacts/tenants/acme, file://{folder}/base'
    )
    assert answer.fields == {"dataset.uri": told}
    await acme.access.AddGrant(pb.AddGrantRequest(parent=ACME, grant=pb.Grant(prefix=f"file://{folder}/pictures/")))
    await acme.jobs.CreateTrainingJob(acme.request())
    request = acme.request()
    request.training_job.spec.output.uri = f"file://{folder}/pictures/out"
    assert list((await refusal(acme.jobs.CreateTrainingJob(request))).fields) == ["output.uri"]
    await acme.access.RemoveGrant(pb.RemoveGrantRequest(parent=ACME, prefix=f"file://{folder}/pictures"))
    assert len((await acme.access.ListGrants(pb.ListGrantsRequest(parent=ACME))).grants) == 1


async def test_a_batch_tells_every_item_that_names_what_is_not_granted_and_so_does_its_plan(acme: Api):
    folder = acme.world.folder
    await acme.access.AddGrant(pb.AddGrantRequest(parent=ACME, grant=pb.Grant(prefix=f"file://{folder}/base")))
    items = [batch_requests.item(), batch_requests.item(dataset={"uri": "s3://raw/a"}), batch_requests.item(output={"uri": "s3://raw/b"})]
    for call in (
        batch_requests.create(acme, items),
        acme.batches.PlanBatch(batch_requests.plan_parts(batch_requests.header(acme.world), items)),
    ):
        assert set((await refusal(call)).fields) == {"defaults.dataset.uri", "items[1].dataset.uri", "items[2].output.uri"}


async def test_with_an_authenticator_nothing_is_granted_until_somebody_grants_it(acme: Api):
    await make_member(acme.world.tools.db, "acme", "bob", Role.SUBMITTER)
    acme.caller.identity = Identity(principal="bob")
    assert set((await refusal(acme.jobs.CreateTrainingJob(acme.request()))).fields) == {"base_model.uri", "dataset.uri"}


async def test_reservations(acme: Api):
    def request(**fields) -> pb.CreateReservationRequest:
        wanted = {"gpus": 2, "start_time": {"seconds": 100}, "end_time": {"seconds": 200}, **fields}
        return pb.CreateReservationRequest(parent=ACME, reservation_id="night", reservation=wanted)

    made = await acme.access.CreateReservation(request())
    assert (made.name, made.end_time.seconds) == (f"{ACME}/reservations/night", 200)
    assert (await refusal(acme.access.CreateReservation(request()))).reason == "RESERVATION_ID_TAKEN"
    for bad in ({"gpus": 0}, {"gpus": float("nan")}, {"end_time": {"seconds": 100}}, {"start_time": {"seconds": 10**13}}):
        assert (await refusal(acme.access.CreateReservation(request(**bad)))).code == "INVALID_ARGUMENT"
    assert len((await acme.access.ListReservations(pb.ListReservationsRequest(parent=ACME))).reservations) == 1
    await acme.access.DeleteReservation(pb.DeleteReservationRequest(name=made.name))
    assert not (await acme.access.ListReservations(pb.ListReservationsRequest(parent=ACME))).reservations


@pytest.mark.parametrize("behind", ["a\x00", "\ud800", "a\nb"])
async def test_a_page_token_that_somebody_made_is_refused_before_the_database_sees_it(acme: Api, behind: str):
    """The sum in a token is no secret."""
    made = paging.token((ACME, "members"), behind=behind)
    answer = await refusal(acme.access.ListMembers(pb.ListMembersRequest(parent=ACME, page_token=made)))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "BAD_PAGE_TOKEN")


async def test_text_that_a_database_does_not_keep_is_refused_by_its_field(acme: Api):
    update = pb.UpdateTenantRequest(tenant=pb.Tenant(name=ACME, display_name="a\x00"), update_mask={"paths": ["display_name"]})
    assert list((await refusal(acme.access.UpdateTenant(update))).fields) == ["tenant.display_name"]
    member = pb.RemoveMemberRequest(parent=ACME, principal="a\x00")
    assert list((await refusal(acme.access.RemoveMember(member))).fields) == ["principal"]
    grant = pb.RemoveGrantRequest(parent=ACME, prefix="s3://a\x00")
    assert list((await refusal(acme.access.RemoveGrant(grant))).fields) == ["prefix"]
    long = pb.AddGrantRequest(parent=ACME, grant=pb.Grant(prefix=f"s3://acme/{'x' * 2000}"))
    assert list((await refusal(acme.access.AddGrant(long))).fields) == ["grant.prefix"]
