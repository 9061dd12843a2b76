"""Dead letters within bounds: payloads cut, counted by device and hour, and purged when they are old.

``payload_bytes`` and ``payload_digest`` (SHA-256) tell what a payload was that is not kept whole; NULL: it is.
``dead_letter_hours`` counts what came of a device in an hour, and what of it was only counted. Undo forgets both; what
was cut stays cut.
"""

from alembic import op

revision = "0012"
down_revision = "0011"

COLUMNS = "ALTER TABLE dead_letters ADD COLUMN payload_bytes bigint, ADD COLUMN payload_digest bytea"

HOURS = """
CREATE TABLE dead_letter_hours (
    hour timestamptz NOT NULL,
    key bytea NOT NULL,
    stream text NOT NULL,
    tenant text,
    device text,
    bytes bigint NOT NULL,
    not_kept bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (hour, key)
)
"""

# The writer deletes no dead letter but by this: old ones, some at a time.
PURGE = """
CREATE FUNCTION gateway_purge_dead_letters(before timestamptz, most integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    purged integer;
BEGIN
    IF before > now() - interval '1 day' OR most > 10000 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'only dead letters older than a day, 10000 at a time';
    END IF;
    WITH old AS (
        SELECT id FROM dead_letters WHERE received_at < before ORDER BY received_at LIMIT most
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM dead_letters USING old WHERE dead_letters.id = old.id;
    GET DIAGNOSTICS purged = ROW_COUNT;
    DELETE FROM dead_letter_hours
    WHERE hour < before OR (not_kept = 0 AND hour < now() - interval '1 day');
    RETURN purged;
END
$$
"""


def upgrade() -> None:
    op.execute(COLUMNS)
    op.execute(HOURS)
    op.execute(PURGE)
    op.execute("REVOKE EXECUTE ON FUNCTION gateway_purge_dead_letters FROM PUBLIC")


def downgrade() -> None:
    op.execute("DROP FUNCTION gateway_purge_dead_letters")
    op.execute("DROP TABLE dead_letter_hours")
    op.execute("ALTER TABLE dead_letters DROP COLUMN payload_bytes, DROP COLUMN payload_digest")
