"""The receive time beside a reading, and what a message with an id of its own held.

By ``received_at`` the later received of two readings of one device and time is known, whichever is written first; it is
NULL in rows of before. By ``digest`` an id that comes again with other content is another message; ids of before have
an empty one, which equals nothing. Undo keeps one row an id.
"""

from alembic import op

revision = "0006"
down_revision = "0004"

KEEP_THE_LATEST = """
DELETE FROM processed_messages AS older USING processed_messages AS newer
WHERE older.tenant_id = newer.tenant_id AND older.message_id = newer.message_id
  AND (older.processed_at, older.digest) < (newer.processed_at, newer.digest)
"""


def upgrade() -> None:
    op.execute("ALTER TABLE telemetry ADD COLUMN received_at timestamptz")
    op.execute("ALTER TABLE processed_messages ADD COLUMN digest bytea NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE processed_messages DROP CONSTRAINT processed_messages_pkey")
    op.execute("ALTER TABLE processed_messages ADD PRIMARY KEY (tenant_id, message_id, digest)")


def downgrade() -> None:
    op.execute(KEEP_THE_LATEST)
    op.execute("ALTER TABLE processed_messages DROP CONSTRAINT processed_messages_pkey")
    op.execute("ALTER TABLE processed_messages DROP COLUMN digest")
    op.execute("ALTER TABLE processed_messages ADD PRIMARY KEY (tenant_id, message_id)")
    op.execute("ALTER TABLE telemetry DROP COLUMN received_at")
