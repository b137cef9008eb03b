"""One engine of each kind of database for all tests of this process, pointed to the database of the test at hand.

An engine keeps the statements that it has compiled. With an engine of its own every test compiled all of its statements anew.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine

from service.db.engines import engine_of, parse_url


@dataclass
class PointedEngine:
    """An engine whose new connections go to `url`."""

    engine: AsyncEngine
    url: URL

    def point(self, _dialect: object, _record: object, arguments: list[Any], named: dict[str, Any]) -> None:
        """SQLAlchemy's event do_connect: changes where a connection is about to go."""
        if self.url.drivername == "sqlite":
            arguments[:] = [self.url.database]
        else:
            where = {"host": self.url.host, "port": self.url.port, "user": self.url.username, "password": self.url.password}
            named.update(where, dbname=self.url.database)


_pointed: dict[str, PointedEngine] = {}


def engine_at(url: str) -> AsyncEngine:
    """The process's engine for this kind of database, from now on at `url`. One at a time: dispose of it before the next is asked for."""
    parsed = parse_url(url)
    known = _pointed.get(parsed.drivername)
    if known is None:
        known = _pointed[parsed.drivername] = PointedEngine(engine_of(url), parsed)
        event.listen(known.engine.sync_engine, "do_connect", known.point)
    known.url = parsed
    return known.engine
