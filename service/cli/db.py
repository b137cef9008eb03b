"""Looks at the schema of a database, brings it up to date, or back: the command `lorafleet db`.

Which database that is, it reads where `lorafleet serve` does: in flags, the environment, and the file of options.
"""

from enum import StrEnum
from typing import Annotated, Any

import typer

from lorafleet.errors import FailedPrecondition, InvalidInput, Unavailable
from lorafleet.terminal import say
from service.settings.layered import given, layered
from service.settings.serve_options import ConfigFile, DatabaseOptions


class Action(StrEnum):
    """What to do."""

    CHECK = "check"
    UPGRADE = "upgrade"
    DOWNGRADE = "downgrade"


@layered
def db(
    action: Annotated[Action, typer.Argument(help="check: 1 unless the schema is this version's; upgrade; downgrade --to REVISION.")],
    database: DatabaseOptions,
    config: ConfigFile = None,
    to: Annotated[str, typer.Option("--to", help="Downgrade: the revision to go back to, or base for none.")] = "",
) -> None:
    """Check the schema of the database, upgrade it, or downgrade it. Back it up before a downgrade, which drops what is newer."""
    from sqlalchemy.exc import SQLAlchemyError

    from service.db.engines import parse_url

    given().checked("--database-url", lambda: parse_url(database.url), None)
    given().done()
    try:
        _do(action, database.url, to)
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise Unavailable(f"the database does not answer: {reason}", reason="DATABASE_UNREACHABLE") from None


def _do(action: Action, url: str, to: str) -> None:
    from service.db import migrate

    if to and action is not Action.DOWNGRADE:
        raise InvalidInput(f"--to is for downgrade; {action} goes to {migrate.HEAD}")
    match action:
        case Action.CHECK:
            _check(migrate, migrate.revision(url))
        case Action.UPGRADE:
            found = migrate.upgrade(url)
            if found in migrate.REVISIONS or migrate.misfits(url):
                _check(migrate, found)
            else:
                say(f"the schema is {found}, newer than this version's {migrate.HEAD}; all that this version uses is there")
        case Action.DOWNGRADE:
            if to not in {"base", *migrate.REVISIONS}:
                raise InvalidInput(f"--to {to!r} is not a revision; known are base, {', '.join(migrate.REVISIONS)}")
            migrate.downgrade(url, to)
            say(f"the schema is {to}; a `lorafleet serve` of this version would upgrade it again: start the older one")


def _check(migrate: Any, found: str | None) -> None:
    """Says how the schema is. Raises FailedPrecondition when it is not this version's."""
    if found == migrate.HEAD:
        say(f"the schema is {found}, as this version needs it")
        return
    if found is None or found in migrate.REVISIONS:
        message = f"the schema is {found or 'not there'}, this version needs {migrate.HEAD}: run `lorafleet db upgrade`"
        raise FailedPrecondition(message, reason="SCHEMA_TOO_OLD")
    message = f"the schema is {found}, this version knows it up to {migrate.HEAD}: use a newer lorafleet, or downgrade with that one"
    raise FailedPrecondition(message, reason="SCHEMA_TOO_NEW")
