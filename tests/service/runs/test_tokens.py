"""Run tokens: good for one run, for a while, and renewed in time."""

from datetime import UTC, datetime, timedelta

import pytest

from lorafleet.errors import Unauthenticated
from service.runs.tokens import RunTokens

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOKENS = RunTokens(b"key", ttl_s=3600)
TOKEN = TOKENS.of("run-1", NOW)


def reason(token: str, *, run: str = "run-1", after_s: float = 0, tokens: RunTokens = TOKENS) -> str:
    with pytest.raises(Unauthenticated) as refused:
        tokens.check(run, token, NOW + timedelta(seconds=after_s))
    assert not token or token not in refused.value.message
    return refused.value.reason


def test_a_token_is_good_until_it_expires() -> None:
    assert TOKENS.check("run-1", TOKEN, NOW + timedelta(seconds=1800)) == ""
    assert TOKENS.check("run-1", TOKEN, NOW + timedelta(seconds=3599))
    assert reason(TOKEN, after_s=3600) == "RUN_TOKEN_EXPIRED"


def test_with_less_than_half_left_there_is_a_newer_one() -> None:
    later = NOW + timedelta(seconds=1801)
    newer = TOKENS.check("run-1", TOKEN, later)
    assert TOKENS.check("run-1", newer, later + timedelta(seconds=1800)) == ""


def test_a_token_of_another_run_is_not_good() -> None:
    assert reason(TOKEN, run="run-2") == "BAD_RUN_TOKEN"
    assert reason(TOKEN.replace("run-1", "run-2"), run="run-2") == "BAD_RUN_TOKEN"
    assert reason(TOKEN, run="") == "BAD_RUN_TOKEN"


def test_a_token_of_another_service_is_not_good() -> None:
    assert reason(TOKEN, tokens=RunTokens(b"another key", ttl_s=3600)) == "BAD_RUN_TOKEN"


def test_nobody_prolongs_a_token_by_writing_to_it() -> None:
    run, expires, mac = TOKEN.split(".")
    assert reason(f"{run}.{int(expires) + 10_000}.{mac}") == "BAD_RUN_TOKEN"


@pytest.mark.parametrize(
    "token", ["", ".", "..", "run-1", "run-1.", "run-1.x.y", "run-1.99999999999.", "run-1..", "\udcff.1.1", "x" * 10_000]
)
def test_what_is_no_token_is_refused(token: str) -> None:
    assert reason(token) == "BAD_RUN_TOKEN"


def test_the_key_is_not_printed() -> None:
    assert "s3cret" not in repr(RunTokens(b"s3cret"))
