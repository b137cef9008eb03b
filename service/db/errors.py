"""Turns database errors into ours: repeated if that may help, and distinguished from those whose work may have been done.

Contended     rolled back for another's sake: doing the whole again finds what the other did
Unreachable   the connection was lost, or could not be had
Unwritable    the disk is full, or another process holds the database's lock
"""

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from lorafleet.errors import Unavailable

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_YIELDED = {
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # lock timeout
    "57014",  # statement timeout
}
_RACED = {
    "23505",  # another has taken the name
    "23503",  # another has deleted what this refers to
    "23P01",  # exclusion
}
_LOST = {
    "25P03",  # idle in transaction for too long: we stood still
    "57P01",  # shutting down
    "57P02",  # another process crashed
    "57P03",  # starting up
    "53300",  # too many connections
}
_SQLITE_RACES = ("UNIQUE constraint failed", "FOREIGN KEY constraint failed")
_SQLITE_BUSY = ("database table is locked",)
_SQLITE_LOCKED = "database is locked"  # by another process: our own writers wait for each other before they ask SQLite
_SQLITE_FULL = ("database or disk is full", "disk I/O error")
_SQLITE_READ_ONLY = ("attempt to write a readonly database", "unable to open database file")
_FULL = "53100"
_READ_ONLY = "25006"


class Contended(Unavailable):
    """Nothing was written because of a conflicting transaction. A repeat may succeed, or find out why not."""

    reason = "DATABASE_CONTENDED"


class Unreachable(Unavailable):
    """The database does not answer. `was_committing`: it may have done the work all the same."""

    reason = "DATABASE_UNREACHABLE"

    def __init__(self, message: str, *, was_committing: bool = False) -> None:
        super().__init__(message)
        self.was_committing = was_committing


class Unwritable(Unavailable):
    """Nothing can be written until the operators have mended something: the disk is full, or another process holds the database."""

    @classmethod
    def for_now(cls, what: str, *, reason: str) -> "Unwritable":
        return cls(f"the database cannot be written: {what}", reason=reason)

    @classmethod
    def again(cls, before: "Unwritable") -> "Unwritable":
        """The same for another transaction."""
        return cls(before.message, reason=before.reason)


def may_be_committed(error: BaseException) -> bool:
    """Whether the transaction that raised this may have been done all the same: then it must not be repeated."""
    return isinstance(error, Unreachable) and error.was_committing


def translated(error: SQLAlchemyError, *, committing: bool) -> Unavailable | None:
    """None for our own bugs, such as a wrong statement."""
    if isinstance(error, PoolTimeoutError):
        return Contended("all connections to the database are in use; try again")
    if not isinstance(error, DBAPIError):
        return None
    code = getattr(error.orig, "sqlstate", None)
    if (unwritable := _unwritable(code, error)) is not None:
        return unwritable
    if error.connection_invalidated or _is_lost(code, error):
        return Unreachable(f"the database does not answer: {_first_line(error)}", was_committing=committing)
    if code in _YIELDED or code in _RACED or _is_sqlites(error):
        return Contended(f"another transaction came first: {_first_line(error)}")
    return None


def _unwritable(code: str | None, error: DBAPIError) -> Unwritable | None:
    said = str(error.orig) if isinstance(error, OperationalError) and type(error.orig).__module__.startswith("sqlite3") else ""
    if code == _FULL or said.startswith(_SQLITE_FULL):
        return Unwritable.for_now(f"its disk is full, or fails ({_first_line(error)}); free space", reason="DATABASE_DISK_FULL")
    if code == _READ_ONLY or said.startswith(_SQLITE_READ_ONLY):
        return Unwritable.for_now(f"it is read-only ({_first_line(error)}); mount its disk for writing", reason="DATABASE_READ_ONLY")
    if said.startswith(_SQLITE_LOCKED):
        return Unwritable.for_now("another process holds its lock; end that (a backup, a shell)", reason="DATABASE_LOCKED")
    return None


def _is_lost(code: str | None, error: DBAPIError) -> bool:
    if code is None:  # no word from the server: it could not be reached, or went away (SQLite's errors have no code either)
        return isinstance(error, OperationalError) and type(error.orig).__module__.startswith("psycopg")
    return code in _LOST or code.startswith("08")


def _is_sqlites(error: DBAPIError) -> bool:
    text = str(error.orig)
    if isinstance(error, IntegrityError):
        return text.startswith(_SQLITE_RACES)
    return isinstance(error, OperationalError) and text.startswith(_SQLITE_BUSY)


def _first_line(error: DBAPIError) -> str:
    """Never the statement with its values, which are the users'."""
    return (str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0]
