"""How many devices the gateways provisioned for a tenant in the latest hour in which they did.

Whoever provisions locks the tenant's row first, which makes ``registry.provisioned_per_hour`` hold over all gateways.
Undo forgets the count.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

TABLE = """
CREATE TABLE provisioned_devices (
    tenant_id uuid PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
    hour timestamptz NOT NULL,
    devices bigint NOT NULL
)
"""


def upgrade() -> None:
    op.execute(TABLE)


def downgrade() -> None:
    op.execute("DROP TABLE provisioned_devices")
