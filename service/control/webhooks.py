"""Tells what becomes of a webhook after a delivery: the next event, the same one later, or a pause. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

FIRST_WAIT_S = 2.0
MAX_WAIT_S = 600.0
PAUSE_AFTER = timedelta(hours=24)  # of nothing but failures
GONE = "GONE"  # the endpoint says that it is no more


class WebhookState(StrEnum):
    """The states of the proto's WebhookState, without its prefix."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"


class EventKind(StrEnum):
    """What happens to adapters."""

    VERSION_CREATED = "version.created"
    VERSION_READY = "version.ready"
    VERSION_DAMAGED = "version.damaged"
    VERSION_DELETED = "version.deleted"
    VERSION_UNDELETED = "version.undeleted"
    VERSION_PURGED = "version.purged"
    ALIAS_MOVED = "alias.moved"
    ALIAS_DELETED = "alias.deleted"
    ADAPTER_DELETED = "adapter.deleted"
    ADAPTER_UNDELETED = "adapter.undeleted"
    ADAPTER_PURGED = "adapter.purged"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a webhook is. `cursor`: the newest event that it has taken, or that is none of its kinds."""

    cursor: int
    state: WebhookState = WebhookState.ACTIVE
    reason: str = ""
    message: str = ""
    failures: int = 0
    failing_since: datetime | None = None
    due_at: datetime
    deliver_time: datetime | None = None


def taken(progress: Progress, seq: int, now: datetime) -> Progress:
    """The endpoint has taken the event."""
    return replace(progress, cursor=seq, reason="", message="", failures=0, failing_since=None, due_at=now, deliver_time=now)


def passed(progress: Progress, seq: int) -> Progress:
    """The events up to here are of kinds that it is not told."""
    return replace(progress, cursor=seq)


def failed(progress: Progress, reason: str, message: str, now: datetime, wait_s: float) -> Progress:
    """The endpoint has not taken it: the same event is sent again. The cursor stays, so nothing is skipped, in a pause either."""
    since = progress.failing_since or now
    later = {"due_at": now + timedelta(seconds=wait_s), "failures": progress.failures + 1, "failing_since": since}
    tried = replace(progress, reason=reason, message=message, **later)
    if reason == GONE or now - since >= PAUSE_AFTER:
        return replace(tried, state=WebhookState.PAUSED)
    return tried


def resumed(progress: Progress, now: datetime) -> Progress:
    """Somebody has mended the endpoint: it goes on with the event that it had not taken."""
    return replace(progress, state=WebhookState.ACTIVE, reason="", message="", failures=0, failing_since=None, due_at=now)
