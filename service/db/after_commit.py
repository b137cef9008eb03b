"""Runs callbacks once a transaction is committed, and never for one that was not."""

from collections.abc import Callable

from sqlalchemy import event
from sqlalchemy.orm import Session

from service.db.transaction import Transaction


def after_commit(tx: Transaction, tell: Callable[[], None]) -> None:
    """Calls `tell` right after the commit of this transaction."""

    def committed(_session: Session) -> None:
        tell()

    event.listen(tx.session.sync_session, "after_commit", committed, once=True)
