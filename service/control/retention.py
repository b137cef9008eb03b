"""Tells which versions of an adapter its rule of retention deletes, and when it is to be asked again. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

MAX_KEPT = 10_000  # versions that a rule may keep
MAX_DAYS = 36_500
KEEP_DELETED = timedelta(days=30)  # how long what was deleted can be had back


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A version stays that is among the newest, is young, or that an alias points to. The newest one always stays."""

    keep_newest: int = 0
    keep_days: int = 0

    def __bool__(self) -> bool:
        return self.keep_newest > 0 or self.keep_days > 0


@dataclass(frozen=True, kw_only=True)
class KeptVersion:
    """A version that is not deleted."""

    number: int
    create_time: datetime
    has_alias: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is deleted now, and when age alone will delete the next; None: only a change can."""

    deleted: tuple[int, ...]
    again_at: datetime | None


def judge(rule: Rule, versions: Sequence[KeptVersion], now: datetime) -> Verdict:
    """By this rule, of all versions of an adapter that are not deleted."""
    if not rule:
        return Verdict(deleted=(), again_at=None)
    newest_first = sorted(versions, key=lambda version: version.number, reverse=True)
    old = [version for version in newest_first[max(rule.keep_newest, 1) :] if not version.has_alias]
    ends = {version.number: version.create_time + timedelta(days=rule.keep_days) for version in old}
    deleted = tuple(number for number, end in ends.items() if end <= now)
    return Verdict(deleted=deleted, again_at=min((end for end in ends.values() if end > now), default=None))
