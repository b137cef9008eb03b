"""The client that a command asks through. Apart from what all commands share: those that ask no server need none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lorafleet import terminal
from lorafleet.commands.connection import given_credentials

if TYPE_CHECKING:
    from lorafleet.client import Client
    from lorafleet.errors import LorafleetError


def connect(server: str, tenant: str) -> Client:
    """A client that reports on stderr when it waits for the server. Raises InvalidInput for contradictory credentials."""
    from lorafleet.client import Client
    from lorafleet.credentials import Credentials
    from lorafleet.transport.retry import Patience

    return Client(server, tenant=tenant, credentials=Credentials(**given_credentials), patience=Patience(on_wait=_report_once()))


def _report_once() -> Callable[[LorafleetError, float], None]:
    seen: set[str] = set()

    def report(error: LorafleetError, left_s: float) -> None:
        if error.message not in seen:
            seen.add(error.message)
            terminal.say(f"{error.message}; trying again for {left_s:.0f} s", err=True, colour="yellow")

    return report
