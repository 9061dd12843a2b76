"""Telemetry, events and metrics: hypertables on TimescaleDB, range partitions on plain PostgreSQL.

On plain PostgreSQL all three have partitions of one UTC day (metrics too: 24 partitions a day would cost
planning time and win nothing), made ahead of need by ``gateway_make_partitions``; what no partition covers
lands in the DEFAULT partition. Undo drops all readings, events and metrics.
"""

from alembic import op

from gateway.storage.migrate import hypertables

revision = "0001"
down_revision = None

TABLES = (
    """
CREATE TABLE telemetry (
    time timestamptz NOT NULL,
    device_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    data jsonb NOT NULL,
    metadata jsonb,
    PRIMARY KEY (device_id, time)
)
""",
    """
CREATE TABLE events (
    time timestamptz NOT NULL,
    device_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    event_type varchar(100) NOT NULL,
    severity varchar(20) NOT NULL,
    message text,
    metadata jsonb,
    PRIMARY KEY (time, device_id, event_type)
)
""",
    """
CREATE TABLE metrics (
    time timestamptz NOT NULL,
    metric_name varchar(255) NOT NULL,
    metric_value double precision NOT NULL,
    tags jsonb,
    tenant_id uuid NOT NULL,
    PRIMARY KEY (time, metric_name, tenant_id)
)
""",
)

CHUNKS = {"telemetry": "1 day", "events": "1 day", "metrics": "1 hour"}

INDEXES = (
    "CREATE INDEX telemetry_tenant_time ON telemetry (tenant_id, time DESC)",
    "CREATE INDEX events_device_type_time ON events (device_id, event_type, time DESC)",
    """
CREATE INDEX events_severity_time ON events (severity, time DESC)
WHERE severity IN ('Critical', 'Error')
""",
)

# CREATE … PARTITION OF would lock the parent against all writers; ATTACH locks only the DEFAULT partition,
# which it scans. The lock timeout keeps a long query on that partition from stalling late rows behind us.
MAKE_PARTITIONS = """
CREATE FUNCTION gateway_make_partitions(since timestamptz, until timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET lock_timeout = '5s' SET timezone = 'UTC'
AS $$
DECLARE
    made integer := 0;
    parent text;
    day timestamptz;
    partition text;
BEGIN
    IF (since >= '1970-01-01' AND since <= until AND until <= now() + interval '366 days'
            AND until - since <= interval '366 days') IS NOT TRUE THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('cannot make partitions from %s until %s', since, until),
            HINT = 'Give at most 366 days, from 1970 on, ending at most 366 days from now.';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('gateway_make_partitions', 0));
    FOREACH parent IN ARRAY ARRAY['telemetry', 'events', 'metrics'] LOOP
        FOR day IN
            SELECT d FROM generate_series(date_trunc('day', since), until, interval '1 day') AS d
            WHERE d < until
        LOOP
            partition := parent || to_char(day, '"_"YYYYMMDD');
            CONTINUE WHEN to_regclass(partition) IS NOT NULL;
            BEGIN
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                    partition, parent);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                    parent, partition, day, day + interval '1 day');
                made := made + 1;
            EXCEPTION WHEN check_violation THEN
                RAISE WARNING 'rows of % are in %_default: they stay there, % is not made',
                    day, parent, partition;
            END;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$
"""


def upgrade() -> None:
    partitioning = "" if hypertables() else " PARTITION BY RANGE (time)"
    for table in TABLES:
        op.execute(table.rstrip() + partitioning)
    for index in INDEXES:
        op.execute(index)
    if hypertables():
        _make_hypertables()
    else:
        _make_first_partitions()


def _make_hypertables() -> None:
    for table, interval in CHUNKS.items():
        op.execute(
            f"SELECT create_hypertable('{table}', 'time', chunk_time_interval => interval '{interval}', "
            "create_default_indexes => false)"
        )


def _make_first_partitions() -> None:
    for table in CHUNKS:
        op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
    op.execute(MAKE_PARTITIONS)
    op.execute("REVOKE EXECUTE ON FUNCTION gateway_make_partitions FROM PUBLIC")
    op.execute("SELECT gateway_make_partitions(now() - interval '1 day', now() + interval '7 days')")


def downgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS gateway_make_partitions")
    for table in reversed(CHUNKS):
        op.execute(f"DROP TABLE {table}")
