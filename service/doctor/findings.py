"""Says what a check finds, and runs checks: one that breaks is a finding too, and stops no other."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from lorafleet.errors import LorafleetError
from lorafleet.redacting import without_passwords

TIMEOUT_S = 20.0


class State(StrEnum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"  # works now
    FAILED = "failed"
    SKIPPED = "skipped"  # not set, or not to be looked at from here


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at. `todo` says what to do; it is empty where there is nothing to do."""

    check: str
    state: State
    message: str
    todo: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", without_passwords(self.message))
        object.__setattr__(self, "todo", without_passwords(self.todo))

    def fields(self) -> dict[str, str]:
        return {name: str(value) for name, value in asdict(self).items()}


Check = Callable[[], Awaitable[Sequence[Finding]]]


def ok(check: str, message: str) -> Finding:
    return Finding(check=check, state=State.OK, message=message)


def warning(check: str, message: str, todo: str) -> Finding:
    return Finding(check=check, state=State.WARNING, message=message, todo=todo)


def failed(check: str, message: str, todo: str) -> Finding:
    return Finding(check=check, state=State.FAILED, message=message, todo=todo)


def skipped(check: str, message: str) -> Finding:
    return Finding(check=check, state=State.SKIPPED, message=message)


async def run(checks: Sequence[tuple[str, Check]]) -> list[Finding]:
    """All findings, in the order of the checks."""
    found = await asyncio.gather(*(_run(name, check) for name, check in checks))
    return [finding for findings in found for finding in findings]


async def _run(name: str, check: Check) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await check()
    except TimeoutError:
        return [failed(name, f"no answer within {TIMEOUT_S:.0f} s", "check that it is up and that nothing on the way drops the packets")]
    except LorafleetError as error:
        return [failed(name, error.message, "see the message")]
    except Exception as error:  # a check that breaks has found something
        return [failed(name, f"{type(error).__name__}: {error}", "see the message; if it tells nothing, it is a bug of lorafleet doctor")]
