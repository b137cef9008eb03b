"""Runs migrations, as alembic's entry point, on the connection that `db.migrate` hands over. Knows no URL of its own."""

from alembic import context

from service.db.models import TableBase

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=TableBase.metadata,
    render_as_batch=True,  # SQLite cannot alter a column: alembic copies the table
)
with context.begin_transaction():
    context.run_migrations()
