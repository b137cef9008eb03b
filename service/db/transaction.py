"""Holds one transaction: its session, its one `now`, and which jobs it changed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVarTuple, cast

from sqlalchemy import Select, Table, insert
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.models import JobRow, TableBase

if TYPE_CHECKING:
    from service.db.attempts import JobRun

Columns = TypeVarTuple("Columns")


# What the event log keeps of a job and its runs: said by whoever opens the database, which builds no messages.
JobEvent = Callable[[JobRow, Sequence["JobRun"]], bytes]


@dataclass
class Transaction:
    """What it does is done at commit or not at all."""

    session: AsyncSession
    now: datetime
    job_event: JobEvent
    reads_only: bool = False
    sender: str = ""  # the process, as the tokens of rows that it takes begin
    touched: dict[str, JobRow] = field(default_factory=dict)  # by uid: watchers are told of them at commit
    succeeded: dict[str, JobRow] = field(default_factory=dict)  # by uid: their artifacts become versions of adapters at commit
    told: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])  # of adapters: their event log has it at commit
    changed: bool = False  # something for the loops to look at
    has_admitted: bool = False  # raises the admission epoch at commit

    @property
    def has_news(self) -> bool:
        """Somebody watches or acts on what it did."""
        return self.changed or bool(self.touched)

    def touch(self, job: JobRow) -> None:
        """The job, or one of its runs, looks different after this transaction."""
        self.show(job)
        self.changed = True

    def show(self, job: JobRow) -> None:
        """The job looks different to who watches it, and nobody has to act on that: its progress."""
        self.touched[job.uid] = job

    async def insert(self, rows_of: type[TableBase], values: Sequence[dict[str, Any]]) -> None:
        """Many new rows by one statement, past the session, whose bookkeeping costs time: it does not know them."""
        if values:
            await self.session.execute(insert(cast(Table, rows_of.__table__)), values)

    def locked(self, query: Select[*Columns], *, of: type[TableBase] | None = None, skip: bool = False) -> Select[*Columns]:
        """The query with its rows locked until commit, and as they are once they are locked. `skip`: without those that
        another has locked. In a snapshot: the query as it is.

        Every row that a transaction writes is read by this first. Runs are locked before jobs, each in the order of their
        ids: two that lock in one order never wait for each other. (SQLite has one writer at a time, and ignores it.)
        """
        if self.reads_only:
            return query
        # No stronger than it must be: rows that refer to these may be added meanwhile.
        locked = query.with_for_update(key_share=True, of=of, skip_locked=skip)
        return locked.execution_options(populate_existing=True)
