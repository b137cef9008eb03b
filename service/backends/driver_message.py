"""Finds the end of a driver's output, as Ray quotes it in a failed job's message. Pure."""

import re

from lorafleet.contract import store_faults
from lorafleet.control_characters import uncoloured
from service.backends.run_log import of_nobody

MESSAGE_TAIL = 600  # characters of the driver's last lines that a job's message shows
RAYS_OWN_LINES = ("Runtime env is setting up.", "Running entrypoint for job ")
_LAST_WORDS = "the run failed: "  # of the driver, in one line (trainer/run.py)
_MARK = re.compile(r"^\[run\] ", re.MULTILINE)


def last_lines(message: str | None) -> str:
    """The driver's own words: every job of the run is told them, so no line about one style is among them."""
    return _own_words(message)[-MESSAGE_TAIL:] or "none"


def reason(message: str | None) -> str:
    """Why the driver ended, by its last words where they tell of a fault that only the operators can mend."""
    return store_faults.reason_in(_own_words(message)) or "DRIVER_EXITED"


def _own_words(message: str | None) -> str:
    quoted = (message or "").rsplit("(truncated to 20,000 chars):\n", 1)[-1]
    lines = [line for line in of_nobody(quoted).splitlines() if not any(rays in line for rays in RAYS_OWN_LINES)]
    told = _MARK.sub("", uncoloured("\n".join(lines))).strip()
    if (at := told.rfind(_LAST_WORDS)) >= 0:
        told = told[at + len(_LAST_WORDS) :]
    return told
