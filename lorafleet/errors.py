"""Declares one exception tree for all packages: a stable reason, retryable or not as data, every violation at once.

LorafleetError
├── InvalidInput            INVALID_ARGUMENT: the caller must change the request
│   └── InvalidSpec         the spec breaks rules; `violations` names every one by field path
├── Unauthenticated         the caller is unknown: no token, or an invalid one
├── PermissionDenied        PERMISSION_DENIED: the caller is known, but may not do this
├── NotFound                the named thing does not exist, or is not the caller's
├── AlreadyExists           the name, or the request id with another body, is taken
├── FailedPrecondition      the thing is in a state that does not allow this
├── Aborted                 the thing has changed since it was read: read it again, and ask again
├── TokenExpired            a page or resume token that can no longer be honoured
├── ResourceExhausted       too much: a limit of the service, or of the caller, is reached
│   ├── QuotaExceeded       `violations` names every quota that would be broken, and whose it is
│   └── RateLimited         too many calls; `retry_delay_s` says when the next is taken
├── DeadlineExceeded        the caller's own time is up; a TimeoutError too
├── Unavailable             an outside system is away; trying again may help
│   └── OperatorsFault      only who runs the service can mend it; work waits until then
└── RunFailed               a style failed while it ran; raised by the trainer, reported as it stands
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lorafleet.redacting import without_passwords


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One broken rule: `field` is a path such as `adapter.target_modules[2]`."""

    field: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", without_passwords(self.message))

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


@dataclass(frozen=True, kw_only=True)
class QuotaViolation:
    """One quota that is used up: `subject` is whose it is, `tenants/acme`; `description` what it allows and what was asked."""

    subject: str
    description: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.description}"


class LorafleetError(Exception):
    """Base of every error that lorafleet raises on purpose. `reason` is stable, for programs.

    `retry_delay_s` is set where it is known when trying again may help.
    """

    reason = "INTERNAL"
    retryable = False
    retry_delay_s: float | None = None

    def __init__(
        self, message: str, *, reason: str | None = None, retryable: bool | None = None, retry_delay_s: float | None = None
    ) -> None:
        self.message = without_passwords(message)  # which may quote a URL, or what a library says of one
        super().__init__(self.message)
        if reason is not None:
            self.reason = reason
        if retryable is not None:
            self.retryable = retryable
        if retry_delay_s is not None:
            self.retry_delay_s = retry_delay_s


class InvalidInput(LorafleetError):
    """The request cannot be honoured as it stands."""

    reason = "INVALID_INPUT"

    def __init__(self, message: str, *, violations: Sequence[Violation] = (), reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.violations = tuple(violations)


class InvalidSpec(InvalidInput):
    """The spec breaks one or more rules. The message lists all of them."""

    reason = "INVALID_SPEC"

    def __init__(self, violations: Sequence[Violation]) -> None:
        count = f"{len(violations)} problem{'s' if len(violations) != 1 else ''} in the spec"
        super().__init__("\n".join([count, *(f"  {violation}" for violation in violations)]), violations=violations)


class Unauthenticated(LorafleetError):
    """No token, or one that is not good."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(LorafleetError):
    """The caller may see the thing, and may not do this with it."""

    reason = "PERMISSION_DENIED"


class NotFound(LorafleetError):
    """No such thing, or not one that the caller may see."""

    reason = "NOT_FOUND"


class AlreadyExists(LorafleetError):
    """The id is taken, or the request id was used with another body."""

    reason = "ALREADY_EXISTS"


class FailedPrecondition(LorafleetError):
    """The thing is in a state that does not allow what was asked."""

    reason = "FAILED_PRECONDITION"


class Aborted(LorafleetError):
    """The thing is not as the caller saw it any more: read it again, decide again."""

    reason = "ABORTED"


class TokenExpired(LorafleetError):
    """A token that was good once and no longer is."""

    reason = "TOKEN_EXPIRED"


class ResourceExhausted(LorafleetError):
    """A limit is reached."""

    reason = "RESOURCE_EXHAUSTED"


class QuotaExceeded(ResourceExhausted):
    """What was asked for is more than a tenant may have. The message lists every quota that stands in the way."""

    reason = "QUOTA_EXCEEDED"

    def __init__(self, message: str, *, violations: Sequence[QuotaViolation], reason: str | None = None) -> None:
        super().__init__("\n".join([message, *(f"  {violation}" for violation in violations)]), reason=reason)
        self.violations = tuple(violations)


class RateLimited(ResourceExhausted):
    """More calls than are taken in this time."""

    reason = "RATE_LIMITED"
    retryable = True


class DeadlineExceeded(LorafleetError, TimeoutError):
    """What was waited for took longer than the caller allowed."""

    reason = "DEADLINE_EXCEEDED"


class Unavailable(LorafleetError):
    """An outside system does not answer; try again."""

    reason = "UNAVAILABLE"
    retryable = True


class OperatorsFault(Unavailable):
    """Nobody's job is to blame: credentials have expired, a disk is full. `reason` is one of `store_faults.OPERATORS`, or a database's."""


class RunFailed(LorafleetError):
    """A style failed in the trainer: says what is wrong, where, and what to do."""

    reason = "RUN_FAILED"
