"""What each session at the broker is subscribed to, which gateway it is of, and whether it is in use.

So a changed configuration can unsubscribe what it no longer asks for, and a gateway finds the sessions that it left.
Undo forgets it.
"""

from alembic import op

revision = "0009"
down_revision = "0008"

COLUMNS = """
ALTER TABLE mqtt_sessions
    ADD COLUMN gateway text,
    ADD COLUMN filters text[] NOT NULL DEFAULT '{}',
    ADD COLUMN in_use boolean NOT NULL DEFAULT true
"""


def upgrade() -> None:
    op.execute(COLUMNS)
    op.execute("UPDATE mqtt_sessions SET gateway = client_id")
    op.execute("ALTER TABLE mqtt_sessions ALTER COLUMN gateway SET NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE mqtt_sessions DROP COLUMN gateway, DROP COLUMN filters, DROP COLUMN in_use")
