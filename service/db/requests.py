"""Request ids that were answered (AIP-155): they are kept for a day, then forgotten, and free again."""

from datetime import datetime

from sqlalchemy import delete, update

from service.db.models import BatchRow, RequestRow
from service.db.transaction import Transaction

KEEP_S = 24 * 3600.0


async def forget(tx: Transaction, before: datetime) -> None:
    """Forgets the ids of requests that were answered before then. What they created stays."""
    unsynced = {"synchronize_session": False}
    await tx.session.execute(delete(RequestRow).where(RequestRow.create_time < before).execution_options(**unsynced))
    old = (BatchRow.create_time < before, BatchRow.request_id.is_not(None))
    await tx.session.execute(update(BatchRow).where(*old).values(request_id=None).execution_options(**unsynced))
