"""API tokens as text: made, taken apart, compared."""

import pytest

from service.access import api_tokens


def test_a_new_token_is_found_by_its_id_and_known_by_its_secret() -> None:
    token = api_tokens.new_token()
    taken = api_tokens.parts(token.text)
    assert taken is not None
    assert taken[0] == token.id
    assert api_tokens.is_secret_of(taken[1], token.secret_sha256)


def test_another_tokens_secret_is_not_good() -> None:
    token, other = api_tokens.new_token(), api_tokens.new_token()
    taken = api_tokens.parts(other.text)
    assert taken is not None
    assert not api_tokens.is_secret_of(taken[1], token.secret_sha256)


def test_what_is_kept_and_what_is_printed_do_not_hold_the_secret() -> None:
    token = api_tokens.new_token()
    secret = token.text.rpartition("_")[2]
    assert secret not in token.secret_sha256
    assert secret not in repr(token)


@pytest.mark.parametrize(
    "text", ["", "lft_", "lft__", "lft_0123456789abcdef_", "x" + "lft_0123456789abcdef_" + 64 * "0", "eyJhbGciOiJub25lIn0.e30."]
)
def test_what_is_no_api_token_is_told_apart(text: str) -> None:
    assert api_tokens.parts(text) is None
