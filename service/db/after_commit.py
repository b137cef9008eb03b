"""Runs callbacks once a transaction is committed, and never for one that was not."""

from collections.abc import Callable

from sqlalchemy import event

from service.db.transaction import Transaction


def after_commit(tx: Transaction, tell: Callable[[], None]) -> None:
    """Calls `tell` right after the commit of this transaction."""
    event.listen(tx.session.sync_session, "after_commit", lambda _session: tell(), once=True)
