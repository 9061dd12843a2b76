"""What makes a redelivery known: the ledger of batches, and the messages' own ids.

Both are written in the transaction of the rows they speak of, and pruned by time. Undo forgets what was
processed: a message redelivered just then may be stored twice.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

REDELIVERY_LEDGER = """
CREATE TABLE redelivery_ledger (
    batch_id uuid PRIMARY KEY,
    client_id text NOT NULL,
    received bigint NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now(),
    packet_ids bytea NOT NULL,
    digests bytea NOT NULL
)
"""

PROCESSED_MESSAGES = """
CREATE TABLE processed_messages (
    tenant_id uuid NOT NULL,
    message_id text NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, message_id)
)
"""


def upgrade() -> None:
    op.execute(REDELIVERY_LEDGER)
    op.execute("CREATE INDEX redelivery_ledger_client_received ON redelivery_ledger (client_id, received)")
    op.execute(PROCESSED_MESSAGES)
    op.execute("CREATE INDEX processed_messages_processed ON processed_messages (processed_at)")


def downgrade() -> None:
    op.execute("DROP TABLE processed_messages")
    op.execute("DROP TABLE redelivery_ledger")
