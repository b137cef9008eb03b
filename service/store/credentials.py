"""Finds store credentials of tenants' own: a tenant names a profile of a file that the operators keep. Nothing here stores or logs one.

The file has the format of AWS's shared credentials file. It is reloaded whenever it changes, so that keys can be replaced
without a restart.
"""

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lorafleet.errors import InvalidInput, OperatorsFault

MISSING = "STORE_CREDENTIALS_MISSING"
_ENV = {
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
}
_NEEDED = ("aws_access_key_id", "aws_secret_access_key")


@dataclass(frozen=True, kw_only=True)
class StoreCredentials:
    """A key of the store."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)

    @property
    def env(self) -> dict[str, str]:
        """As a run gets them. An unset token is an empty one, so that none of the machine's own goes with this key."""
        values = (self.access_key_id, self.secret_access_key, self.session_token)
        return dict(zip(_ENV.values(), values, strict=True))


class CredentialsFile:
    """The profiles of the file; of none without a path."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._read: tuple[tuple[int, int, int], dict[str, StoreCredentials]] | None = None

    def profiles(self) -> Mapping[str, StoreCredentials]:
        """By name. Raises InvalidInput with every mistake in the file; no message shows a value."""
        if self._path is None:
            return {}
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            if self._read is None or self._read[0] != version:
                self._read = (version, parse(self._path.read_text()))
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "is not text"
            raise InvalidInput(f"--store-credentials: {self._path} cannot be read: {why}") from None
        return self._read[1]

    def get(self, reference: str) -> StoreCredentials:
        """Raises OperatorsFault: work that needs it resumes once the operators have fixed the file."""
        try:
            found = self.profiles().get(reference)
        except InvalidInput:
            raise OperatorsFault("the service's file of store credentials cannot be read; ask its operators", reason=MISSING) from None
        if found is None:
            message = f'the store credentials "{reference}" that the tenant is set up with are not there; ask the operators of the service'
            raise OperatorsFault(message, reason=MISSING)
        return found


def parse(text: str) -> dict[str, StoreCredentials]:
    """The profiles of such a file. Raises InvalidInput with every mistake."""
    parser = configparser.RawConfigParser(default_section="\0")  # [default] is a profile like any other
    try:
        parser.read_string(text)
    except configparser.Error as error:
        message = f"--store-credentials: line {getattr(error, 'lineno', '?')} is not as in an AWS credentials file ({type(error).__name__})"
        raise InvalidInput(message) from None
    mistakes = [mistake for name in parser.sections() for mistake in _mistakes(name, dict(parser[name]))]
    if mistakes:
        raise InvalidInput("\n".join(mistakes))
    return {name: _credentials(parser[name]) for name in parser.sections()}


def _mistakes(name: str, values: Mapping[str, str]) -> list[str]:
    missing = [f"--store-credentials: [{name}] has no {key}" for key in _NEEDED if not values.get(key)]
    unknown = [f"--store-credentials: [{name}] has {key}; it takes {', '.join(_ENV)} alone" for key in values if key not in _ENV]
    return [*missing, *unknown]


def _credentials(values: Mapping[str, str]) -> StoreCredentials:
    return StoreCredentials(
        access_key_id=values["aws_access_key_id"],
        secret_access_key=values["aws_secret_access_key"],
        session_token=values.get("aws_session_token", ""),
    )
