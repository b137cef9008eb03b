"""The table of what a role may do."""

import pytest

from service.access.identity import Role
from service.access.permissions import Permission, allows


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (Role.VIEWER, {Permission.VIEW}),
        (Role.SUBMITTER, {Permission.VIEW, Permission.SUBMIT}),
        (Role.OPERATOR, {Permission.VIEW, Permission.SUBMIT, Permission.OPERATE}),
        (Role.ADMIN, {Permission.VIEW, Permission.SUBMIT, Permission.OPERATE, Permission.MANAGE}),
    ],
)
def test_each_role_may_what_those_before_it_may_and_no_more(role: Role, may: set[Permission]):
    assert {permission for permission in Permission if allows(role, permission)} == may


def test_no_role_of_a_tenant_may_set_the_tenants_own_limits():
    assert not any(allows(role, Permission.ADMINISTER) for role in Role)
