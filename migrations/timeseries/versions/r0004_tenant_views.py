"""Security-barrier views by which a tenant reads its own rows, by app.current_tenant_id.

Views, not row-level security: that is refused on a hypertable with the columnstore. The setting is cast, not
compared as text, so that the indexes on tenant_id serve; unset or empty shows nothing, no UUID fails.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = ("telemetry", "events", "metrics")

OF_TENANT = "tenant_id = nullif(current_setting('app.current_tenant_id', true), '')::uuid"


def upgrade() -> None:
    for table in TABLES:
        view = f"CREATE VIEW tenant_{table} WITH (security_barrier)"
        op.execute(f"{view} AS SELECT * FROM {table} WHERE {OF_TENANT}")


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP VIEW tenant_{table}")
