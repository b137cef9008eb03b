"""One transaction: its session, its one `now`, and which jobs it changed."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from service.db.models import JobRow


@dataclass
class Transaction:
    """What it does is done at commit or not at all."""

    session: AsyncSession
    now: datetime
    touched: dict[str, JobRow] = field(default_factory=dict)  # by uid: watchers are told of them at commit
    changed: bool = False  # something for the loops to look at

    def touch(self, job: JobRow) -> None:
        """The job, or one of its runs, looks different after this transaction."""
        self.touched[job.uid] = job
        self.changed = True
