"""Says what a failed call to a store means, and to whom: one table for boto3's errors, obstore's and the operating system's. Pure.

Three kinds. The operators' faults (a key that has expired, a clock that is wrong, a full disk) are no job's: work waits until they
are mended. A fault of one job (a missing bucket, a name that no store takes) ends that job at once. All else passes.
"""

import errno
import re
from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """Whose it is to mend."""

    OPERATOR = "OPERATOR"  # who runs the service, or gave a tenant its credentials
    PERMANENT = "PERMANENT"  # who wrote the spec: trying again would not help
    TRANSIENT = "TRANSIENT"  # nobody: trying again may help


@dataclass(frozen=True)
class Fault:
    """`reason` is stable, for programs; `what` says it to people, without the place."""

    kind: FaultKind
    reason: str
    what: str


def _operator(reason: str, what: str) -> Fault:
    return Fault(FaultKind.OPERATOR, reason, what)


def _permanent(reason: str, what: str) -> Fault:
    return Fault(FaultKind.PERMANENT, reason, what)


EXPIRED = _operator("STORE_CREDENTIALS_EXPIRED", "the store credentials have expired; the operators must renew them")
INVALID = _operator("STORE_CREDENTIALS_INVALID", "the store does not accept the credentials; the operators must replace them")
UNSET = _operator(
    "STORE_CREDENTIALS_MISSING", "there are no store credentials; the operators must provide them (AWS_ACCESS_KEY_ID, a role)"
)
SKEWED = _operator("CLOCK_SKEWED", "this machine's clock is too far from the store's; the operators must set it right")
KEY_UNUSABLE = _operator("STORE_KEY_UNUSABLE", "the store cannot use its encryption key (KMS); the operators must give access to it")
DISK_FULL = _operator("DISK_FULL", "disk full; the operators must free space")
DISK_READ_ONLY = _operator("DISK_READ_ONLY", "the disk is read-only; the operators must mount it for writing")

ACCESS_DENIED = _permanent("ACCESS_DENIED", "access denied; check the policy of the bucket or folder, and the grant")
BUCKET_MISSING = _permanent("BUCKET_MISSING", "the bucket does not exist; create it or correct the URI")
OBJECT_MISSING = _permanent("OBJECT_MISSING", "does not exist")
OTHER_REGION = _permanent("BUCKET_IN_ANOTHER_REGION", "the bucket is in another region than the one asked; set AWS_REGION to the bucket's")
NAME_REFUSED = _permanent("NAME_NOT_STORABLE", "no store takes this name; use shorter names, without control characters and empty parts")
REFUSED = _permanent("STORE_ERROR", "the store refuses")

NO_ANSWER = Fault(FaultKind.TRANSIENT, "STORE_UNAVAILABLE", "the store does not answer; try again")

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and what MinIO and STS say beyond it.
_OF_CODES = {
    EXPIRED: ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"),
    INVALID: (
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId", "InvalidSecurity", "NotSignedUp"),
        *("UnrecognizedClientException", "InvalidIdentityToken", "AccountProblem", "AllAccessDisabled", "XMinioInvalidIAMCredentials"),
    ),
    SKEWED: ("RequestTimeTooSkewed", "RequestExpired"),
    DISK_FULL: ("XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage", "EntityTooLargeForQuota"),
    DISK_READ_ONLY: ("XMinioBackendDown", "ReadOnlyFileSystem"),
    KEY_UNUSABLE: ("KMSNotConfigured", "XMinioKMSNotConfigured", "ServerSideEncryptionConfigurationNotFoundError"),
    ACCESS_DENIED: ("AccessDenied", "AccessDeniedException", "AccountAccessDenied", "MethodNotAllowed", "InvalidObjectState"),
    BUCKET_MISSING: ("NoSuchBucket",),
    OBJECT_MISSING: ("NoSuchKey", "NotFound", "NoSuchVersion"),
    OTHER_REGION: ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "InvalidRegion"),
    NAME_REFUSED: (
        *("KeyTooLongError", "KeyTooLong", "InvalidURI", "InvalidBucketName", "InvalidObjectName", "XMinioInvalidObjectName"),
        *("XMinioInvalidResourceName", "XMinioParentIsObject", "XMinioObjectExistsAsDirectory"),
    ),
    NO_ANSWER: (
        *("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "ThrottlingException", "BadDigest"),
        *("OperationAborted", "XMinioServerNotInitialized", "RequestLimitExceeded", "IncompleteBody", "TemporaryRedirect"),
    ),
}
_BY_CODE = {code: fault for fault, codes in _OF_CODES.items() for code in codes}
_BY_ERRNO = {
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: DISK_FULL,
    errno.EROFS: DISK_READ_ONLY,
    errno.EACCES: ACCESS_DENIED,
    errno.EPERM: ACCESS_DENIED,
    errno.ENOENT: OBJECT_MISSING,
    errno.ENAMETOOLONG: NAME_REFUSED,
    errno.EINVAL: NAME_REFUSED,
    errno.EILSEQ: NAME_REFUSED,
    # Disks, network mounts and machines that are short of something come back.
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETXTBSY), NO_ANSWER),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH), NO_ANSWER),
    **dict.fromkeys((errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ENETUNREACH, errno.ENETDOWN), NO_ANSWER),
}
# The names of boto3's exceptions for what it finds out without the store.
_BY_EXCEPTION = {
    **dict.fromkeys(("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError"), UNSET),
    **dict.fromkeys(("UnauthorizedSSOTokenError", "SSOTokenLoadError", "TokenRetrievalError", "RefreshWithMFAUnsupportedError"), EXPIRED),
    **dict.fromkeys(("ParamValidationError", "InvalidS3AddressingStyleError", "UnsupportedS3ArnError"), NAME_REFUSED),
}
_STATUS = re.compile(r"status code: (\d{3})[^:<]*(?::\s*(.*))?\Z", re.DOTALL)
_CODE = re.compile(r"<Code>\s*([\w.:-]{1,100})\s*</Code>")
_OS_ERROR = re.compile(r"\(os error (\d{1,4})\)")
_LOST_REGION = "Received redirect without LOCATION"
_BAD_NAME = "Could not parse path"

_LAST_WORDS = "lorafleet run: "
# The service is refused in a folder of its own, which no job has named: whatever the store says, that is its operators' to mend.
OWN_PLACE = "SERVICE_STORE_REFUSES"
# Reasons that let work wait: a run that ends by one costs none of its job's attempts.
OPERATORS = frozenset({OWN_PLACE, *(fault.reason for fault in (EXPIRED, INVALID, UNSET, SKEWED, KEY_UNUSABLE, DISK_FULL, DISK_READ_ONLY))})


def last_words(reason: str, message: str) -> str:
    """What a run's driver says last when it ends before it can report: its backend quotes it (see `reason_in`)."""
    return f"{_LAST_WORDS}{reason}: {' '.join(message.split())}"


def reason_in(last_line: str) -> str | None:
    """The operators' fault that a driver's last line tells of, if it does."""
    said, _, _ = last_line.removeprefix(_LAST_WORDS).partition(":")
    return said if last_line.startswith(_LAST_WORDS) and said in OPERATORS else None


def of_answer(code: str, status: int, operation: str = "") -> Fault:
    """Of a store's answer: its error code, empty where there is none (HEAD), and the HTTP status; `operation` is what was asked."""
    if (known := _BY_CODE.get(code)) is not None:
        # Who may not take on its role has no credentials: no bucket was asked.
        return INVALID if known is ACCESS_DENIED and operation.startswith("AssumeRole") else known
    if code.upper().startswith(("KMS.", "KMS:", "KMSINVALID", "KMSDISABLED", "KMSACCESS")):
        return KEY_UNUSABLE
    return _of_status(status)


def _of_status(status: int) -> Fault:
    match status:
        case 301 | 307 | 308:
            return OTHER_REGION
        case 401:
            return INVALID
        case 403:
            return ACCESS_DENIED
        case 404:
            return OBJECT_MISSING
        case 414:
            return NAME_REFUSED
        case 507:
            return DISK_FULL
        case 501:
            return REFUSED
        case _:
            return REFUSED if 400 <= status < 500 and status not in {408, 429} else NO_ANSWER


def of_errno(number: int | None) -> Fault:
    """Of the operating system's answer, such as one about a file where a folder should be."""
    return NO_ANSWER if number is None else _BY_ERRNO.get(number, REFUSED)


def of_exception(name: str) -> Fault:
    """Of an exception that comes with no answer, by the name of its class."""
    return _BY_EXCEPTION.get(name, NO_ANSWER)


def of_text(text: str) -> Fault:
    """Of an error that is only text, as obstore's are. What it quotes of names stands before the store's answer, which counts."""
    text = text.partition("\n\nDebug source:")[0]
    if _BAD_NAME in text:
        return NAME_REFUSED
    if _LOST_REGION in text:
        return OTHER_REGION
    answers = text.rfind("status code: ")
    if answers >= 0 and (answer := _STATUS.match(text, answers)) is not None:
        code = _CODE.search(answer[2] or "")
        return of_answer(code[1] if code else "", int(answer[1]))
    numbers = _OS_ERROR.findall(text)
    return of_errno(int(numbers[-1])) if numbers else NO_ANSWER
