"""Dead letters: messages that could not become readings, with their original bytes.

No foreign key and no type but text for tenant and device: a dead letter may name what does not exist. Undo
drops them for good.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

DEAD_LETTERS = """
CREATE TABLE dead_letters (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    received_at timestamptz NOT NULL,
    stream text NOT NULL,
    topic text NOT NULL,
    payload bytea NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    tenant text,
    device text,
    qos smallint NOT NULL,
    retained boolean NOT NULL,
    properties jsonb,
    replays integer NOT NULL DEFAULT 0,
    replayed_at timestamptz,
    replay_outcome text
)
"""

INDEXES = (
    "CREATE INDEX dead_letters_received ON dead_letters (received_at DESC)",
    "CREATE INDEX dead_letters_reason_received ON dead_letters (reason, received_at DESC)",
    "CREATE INDEX dead_letters_stream_received ON dead_letters (stream, received_at DESC)",
)


def upgrade() -> None:
    for statement in (DEAD_LETTERS, *INDEXES):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE dead_letters")
