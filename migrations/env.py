"""Run by Alembic for both trees; ``gateway.storage.migrate`` opened the connection and chose the engine."""

from alembic import context

given = context.config.attributes

context.configure(
    connection=given["connection"],
    version_table=given["version_table"],
    transaction_per_migration=True,
    on_version_apply=given["on_step"],
    hypertables=given["hypertables"],
)
with context.begin_transaction():
    context.run_migrations()
