"""Partitions on plain PostgreSQL, one at a time and in steps: nobody waits long for them, and they for nobody.

``gateway_make_partition`` takes the place of ``gateway_make_partitions``, which waited 5 s for a lock on the DEFAULT
partition, with all late readings behind it, and had ATTACH scan that partition under the lock. Undo brings it back.
"""

from alembic import op

from gateway.storage.migrate import hypertables

revision = "0008"
down_revision = "0007"

# ATTACH locks the DEFAULT partition against everybody, and scans it. So: wait for that lock 200 ms at most; scan only
# what is small. A large one is scanned beforehand, in a transaction of its own and under a lock that lets readers and
# writers through, to validate a CHECK that keeps the day out; ATTACH sees it and does not scan. From the first step to
# the last that CHECK refuses readings of the day: it is for days that are more than a day away.
# Writers that meet it find its name in the error (gateway/storage/sqlstate.py) and wait.
MAKE_PARTITION = """
CREATE FUNCTION gateway_make_partition(parent text, day date, whole boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET lock_timeout = '200ms' SET timezone = 'UTC'
AS $$
DECLARE
    few CONSTANT bigint := 10000;  -- rows that are moved in some 100 ms
    small CONSTANT bigint := 32 * 1024 * 1024;  -- bytes that are scanned in some 100 ms
    partition text := parent || to_char(day, '"_"YYYYMMDD');
    mark text := 'gateway_without' || to_char(day, '"_"YYYYMMDD');
    of_day text := format('time >= %L AND time < %L', day::timestamptz, (day + 1)::timestamptz);
    rest regclass;
    checked boolean;
    found bigint;
    large boolean;
BEGIN
    IF (parent IN ('telemetry', 'events', 'metrics')
            AND day BETWEEN '1970-01-01' AND current_date + 366) IS NOT TRUE THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('cannot make a partition of %s for %s', parent, day),
            HINT = 'Give telemetry, events or metrics, and a day from 1970 on, at most 366 days from now.';
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtextextended('gateway_make_partition', 0)) THEN
        RETURN 'busy';
    ELSIF to_regclass(partition) IS NOT NULL THEN
        RETURN 'there';
    END IF;
    SELECT nullif(partdefid, 0) INTO rest FROM pg_partitioned_table WHERE partrelid = parent::regclass;
    SELECT convalidated INTO checked FROM pg_constraint WHERE conrelid = rest AND conname = mark;
    IF checked IS NULL AND rest IS NOT NULL AND NOT whole THEN
        EXECUTE format('SELECT count(*) FROM (SELECT FROM %s WHERE %s LIMIT %s) AS a_few', rest, of_day, few + 1)
            INTO found;
        large := pg_relation_size(rest) > small;
        IF found > few OR large AND (found > 0 OR day <= current_date + 1) THEN
            RETURN 'left';
        ELSIF large THEN
            EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (NOT (%s)) NOT VALID', rest, mark, of_day);
            RETURN 'again';
        END IF;
    ELSIF NOT checked THEN
        BEGIN
            EXECUTE format('ALTER TABLE %s VALIDATE CONSTRAINT %I', rest, mark);
            RETURN 'again';
        EXCEPTION WHEN check_violation THEN  -- a reading that was on its way before the constraint
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', rest, mark);
            RETURN 'left';
        END;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition, parent);
    IF checked IS NULL AND rest IS NOT NULL THEN
        PERFORM set_config('lock_timeout', '60s', true) WHERE whole;
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', rest);
        EXECUTE format('WITH moved AS (DELETE FROM %s WHERE %s RETURNING *) INSERT INTO %I SELECT * FROM moved',
            rest, of_day, partition);
    END IF;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        parent, partition, day::timestamptz, (day + 1)::timestamptz);
    IF checked THEN
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', rest, mark);
    END IF;
    RETURN 'made';
END
$$
"""

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

DROP_MARKS = """
DO $$
DECLARE mark record;
BEGIN
    FOR mark IN SELECT conrelid::regclass AS rest, conname FROM pg_constraint
        WHERE conname LIKE 'gateway\\_without\\_%' AND contype = 'c'
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', mark.rest, mark.conname);
    END LOOP;
END
$$
"""


def upgrade() -> None:
    if hypertables():
        return
    op.execute(MAKE_PARTITION)
    op.execute("REVOKE EXECUTE ON FUNCTION gateway_make_partition FROM PUBLIC")
    op.execute("DROP FUNCTION gateway_make_partitions")


def downgrade() -> None:
    if op.get_bind().exec_driver_sql("SELECT to_regproc('gateway_make_partition')").scalar() is None:
        return
    op.execute(DROP_MARKS)
    op.execute("DROP FUNCTION gateway_make_partition")
    op.execute(MAKE_PARTITIONS)
    op.execute("REVOKE EXECUTE ON FUNCTION gateway_make_partitions FROM PUBLIC")
