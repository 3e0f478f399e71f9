"""Alembic's entry point. The connection, inside a transaction, comes from `schema`."""

from alembic import context

from search.storage.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
