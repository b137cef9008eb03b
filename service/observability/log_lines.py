"""Writes the server's log: text for people or one JSON object a line, each line with what it is about, and no secret in any.

Secrets are not logged on purpose anywhere; what is blanked out here is what slips into a message or a traceback by accident.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

from lorafleet.control_characters import one_line, visible, visible_json
from lorafleet.redacting import BLANK, without_passwords
from service.access.identity import current_identity
from service.core import log_context, telemetry

CONTINUED = "    "  # before every line of a message or traceback that is not its first
CHATTY = ("httpx", "httpcore", "alembic", "botocore", "aiosqlite", "asyncio", "urllib3", "opentelemetry")
# Whose values are secrets; a short one would blank out ordinary words.
_SECRET_ENVIRONMENT = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN", "LORAFLEET_TOKEN")
_MIN_SECRET_LENGTH = 8

_SECRETS = [
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',;]+"), rf"\1 {BLANK}"),
    (re.compile(r"\b(lft_[0-9a-f]{16})_[0-9a-f]+"), rf"\1_{BLANK}"),  # API tokens: the id may be told
    (re.compile(r"\b(run-[0-9a-f]+)\.[0-9A-Za-z._~+/=-]{16,}"), rf"\1.{BLANK}"),  # run tokens
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), BLANK),  # JWTs
    (
        re.compile(r"(?i)((?:secret|password|passwd|private_key|access_key|auth_token)[\w-]*[\"']?\s*[=:]\s*[\"']?)[^\s\"',&}]+"),
        rf"\1{BLANK}",
    ),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL), BLANK),
]


class LogFormat(StrEnum):
    """What a line of the log is."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """How much is logged to stderr."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def set_up(level: LogLevel, log_format: LogFormat) -> None:
    """Logs to stderr from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format is LogFormat.JSON else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text without what looks like a secret, and without the secrets that this process was given."""
    for name in _SECRET_ENVIRONMENT:
        if len(secret := environment.get(name, "")) >= _MIN_SECRET_LENGTH:
            text = text.replace(secret, BLANK)
    text = without_passwords(text)
    for pattern, blanked in _SECRETS:
        text = pattern.sub(blanked, text)
    return text


class TextLines(logging.Formatter):
    """`time LEVEL logger: message [run=… job=…]`, the traceback behind it.

    Of a text with several lines, as of a traceback, all but the first are indented: nothing that a caller wrote begins a line.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s%(about)s")

    def format(self, record: logging.LogRecord) -> str:
        about = " ".join(f"{name}={value}" for name, value in _about().items())
        record.about = f" [{about}]" if about else ""
        return visible(redacted(super().format(record))).replace("\n", f"\n{CONTINUED}")


class JsonLines(logging.Formatter):
    """One object a line: time, level, logger, message, what it is about, trace_id, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_about(),
        }
        if trace_parent := telemetry.calls_trace_parent.get():
            line["trace_id"] = trace_parent.split("-")[1]
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return visible_json(json.dumps({name: redacted(value) for name, value in line.items()}, ensure_ascii=False))


def _about() -> dict[str, str]:
    """Names come from callers, who are not to write lines of our log."""
    about = {name: one_line(value) for name, value in log_context.bound().items()}
    if (identity := current_identity.get(None)) is not None:
        about["principal"] = one_line(identity.principal)
    return about
