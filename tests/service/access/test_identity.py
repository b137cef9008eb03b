"""Identities: roles in their order, nobody by default."""

import itertools

import pytest

from lorafleet.errors import Unauthenticated
from service.access.identity import OPEN, Identity, Role, caller, current_identity


@pytest.mark.parametrize(("lower", "higher"), itertools.combinations(Role, 2))
def test_a_role_may_what_those_before_it_may_and_not_the_reverse(lower: Role, higher: Role) -> None:
    assert higher.includes(lower)
    assert higher.includes(higher)
    assert not lower.includes(higher)


def test_without_authentication_nobody_calls() -> None:
    with pytest.raises(Unauthenticated):
        caller()


def test_the_caller_is_the_one_that_was_set() -> None:
    known = Identity(principal="ada", tenant="acme", role=Role.VIEWER)
    token = current_identity.set(known)
    try:
        assert caller() is known
    finally:
        current_identity.reset(token)


def test_an_identity_is_no_admin_unless_somebody_says_so() -> None:
    assert not Identity(principal="ada").is_admin
    assert OPEN.is_admin
