"""The broker's sessions: the ledger believes a row only of the session that the broker has resumed.

Rows of before name no session and are never believed: what was unacknowledged at the upgrade may be stored twice.
Undo forgets the sessions.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

MQTT_SESSIONS = """
CREATE TABLE mqtt_sessions (
    client_id text PRIMARY KEY,
    session uuid NOT NULL,
    confirmed bigint NOT NULL,
    in_turn boolean NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
)
"""


def upgrade() -> None:
    op.execute(MQTT_SESSIONS)
    op.execute("ALTER TABLE redelivery_ledger ADD COLUMN session uuid")


def downgrade() -> None:
    op.execute("ALTER TABLE redelivery_ledger DROP COLUMN session")
    op.execute("DROP TABLE mqtt_sessions")
