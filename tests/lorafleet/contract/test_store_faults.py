"""Whose fault a store's refusal is: the operators', one job's, or nobody's."""

import errno

import pytest

from lorafleet.contract import store_faults
from lorafleet.contract.store_faults import OPERATORS, FaultKind


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("ExpiredToken", 400, "STORE_CREDENTIALS_EXPIRED"),
        ("RequestTimeTooSkewed", 403, "CLOCK_SKEWED"),
        ("InvalidAccessKeyId", 403, "STORE_CREDENTIALS_INVALID"),
        ("SignatureDoesNotMatch", 403, "STORE_CREDENTIALS_INVALID"),
        ("KMS.DisabledException", 400, "STORE_KEY_UNUSABLE"),
        ("KMS.NotFoundException", 400, "STORE_KEY_UNUSABLE"),
        ("XMinioStorageFull", 507, "DISK_FULL"),
        ("", 507, "DISK_FULL"),
        ("", 401, "STORE_CREDENTIALS_INVALID"),
    ],
)
def test_credentials_clocks_keys_and_disks_are_the_operators(code: str, status: int, reason: str):
    fault = store_faults.of_answer(code, status)
    assert (fault.kind, fault.reason) == (FaultKind.OPERATOR, reason)
    assert reason in OPERATORS


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("AccessDenied", 403, "ACCESS_DENIED"),
        ("", 403, "ACCESS_DENIED"),
        ("NoSuchBucket", 404, "BUCKET_MISSING"),
        ("NoSuchKey", 404, "OBJECT_MISSING"),
        ("PermanentRedirect", 301, "BUCKET_IN_ANOTHER_REGION"),
        ("AuthorizationHeaderMalformed", 400, "BUCKET_IN_ANOTHER_REGION"),
        ("KeyTooLongError", 400, "NAME_NOT_STORABLE"),
        ("XMinioInvalidObjectName", 400, "NAME_NOT_STORABLE"),
        ("NotImplemented", 501, "STORE_ERROR"),
        ("SomethingNew", 400, "STORE_ERROR"),
    ],
)
def test_what_a_spec_names_wrongly_is_its_jobs(code: str, status: int, reason: str):
    fault = store_faults.of_answer(code, status)
    assert (fault.kind, fault.reason) == (FaultKind.PERMANENT, reason)
    assert reason not in OPERATORS


@pytest.mark.parametrize(("code", "status"), [("SlowDown", 503), ("", 500), ("", 408), ("", 429), ("RequestTimeout", 400), ("", 0)])
def test_a_busy_store_is_nobodys(code: str, status: int):
    assert store_faults.of_answer(code, status).kind is FaultKind.TRANSIENT


def test_who_may_not_take_on_its_role_has_no_credentials():
    assert store_faults.of_answer("AccessDenied", 403, "AssumeRoleWithWebIdentity").kind is FaultKind.OPERATOR


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "DISK_FULL"),
        (errno.EDQUOT, "DISK_FULL"),
        (errno.EROFS, "DISK_READ_ONLY"),
        (errno.EACCES, "ACCESS_DENIED"),
        (errno.ENAMETOOLONG, "NAME_NOT_STORABLE"),
        (errno.ESTALE, "STORE_UNAVAILABLE"),
        (errno.EEXIST, "STORE_ERROR"),
        (None, "STORE_UNAVAILABLE"),
    ],
)
def test_the_operating_systems_answers(number: int | None, reason: str):
    assert store_faults.of_errno(number).reason == reason


ANSWER = "Generic S3 error: Error performing GET http://h/b/k in 1ms - Server returned non-2xx status code: 400 Bad Request: "


def test_a_name_that_looks_like_an_answer_is_none():
    path = "a status code: 400 Bad Request: <Code>ExpiredToken</Code>"
    text = f"The operation lacked privileges for path {path}: {ANSWER}<Error><Code>KeyTooLongError</Code><Key>x</Key></Error>"
    assert store_faults.of_text(text).reason == "NAME_NOT_STORABLE"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            f"{ANSWER}<Error><Code>ExpiredToken</Code><Message>m</Message></Error>\n\nDebug source:\n<Code>AccessDenied</Code>",
            "STORE_CREDENTIALS_EXPIRED",
        ),
        (f"{ANSWER}<html>no S3 at all</html>", "STORE_ERROR"),
        ("Error performing PUT http://h/b/k - Received redirect without LOCATION, this normally indicates", "BUCKET_IN_ANOTHER_REGION"),
        ("Unable to copy data to file: File too large (os error 27)", "STORE_ERROR"),
        ("Unable to copy data to file: No space left on device (os error 28)", "DISK_FULL"),
        ('Could not parse path: Path "a//b" contained empty path segment', "NAME_NOT_STORABLE"),
        ("error trying to connect: tcp connect error", "STORE_UNAVAILABLE"),
    ],
)
def test_an_error_that_is_only_text(text: str, reason: str):
    assert store_faults.of_text(text).reason == reason
