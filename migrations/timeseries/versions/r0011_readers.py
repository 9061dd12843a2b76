"""Readers bound to their tenant; partitions without an advisory lock.

A log-in sees the tenant that ``telemetry_readers`` names for it. Functions that run as the owner, not security-barrier
views: on those EXPLAIN ANALYZE counts the rows of others that a condition of the reader's own choosing meets. With a
range they read that range only; the views read all. Partitions are made under a lock that only who may change the
tables can take; an advisory lock anybody can. Undo brings both back as they were.
"""

from alembic import op

from gateway.storage.migrate import hypertables

revision = "0011"
down_revision = "0009"

READERS = """
CREATE TABLE telemetry_readers (
    role name PRIMARY KEY,
    tenant_id uuid NOT NULL,
    bound_at timestamptz NOT NULL DEFAULT now()
)
"""

COLUMNS = {
    "telemetry": '"time" timestamptz, device_id uuid, tenant_id uuid, data jsonb, metadata jsonb',
    "events": '"time" timestamptz, device_id uuid, tenant_id uuid, event_type varchar, severity varchar, message text, '
    "metadata jsonb",
    "metrics": '"time" timestamptz, metric_name varchar, metric_value double precision, tags jsonb, tenant_id uuid',
}

# The body is parsed here and now, so no search_path of a caller matters. SRF in the target list: rows come one by one,
# none is kept for a LIMIT.
FUNCTION = """
CREATE FUNCTION tenant_{table}({arguments}since timestamptz, until timestamptz) RETURNS TABLE ({columns})
LANGUAGE sql STABLE SECURITY DEFINER
BEGIN ATOMIC
    SELECT {names} FROM {table} x
    WHERE x.tenant_id = (SELECT r.tenant_id FROM telemetry_readers r WHERE r.role = session_user)
      AND x.time >= since AND x.time < until{condition};
END
"""
VIEW = """
CREATE VIEW tenant_{table} AS
SELECT (x.row).* FROM (SELECT tenant_{table}('-infinity', 'infinity') AS row) AS x
"""
OF_DEVICE = {"telemetry": "device uuid, ", "events": "device uuid, "}

OLD_CONDITION = "tenant_id = nullif(current_setting('app.current_tenant_id', true), '')::uuid"
OLD_VIEW = (
    "CREATE VIEW tenant_{table} WITH (security_barrier) AS SELECT {names} FROM {table} WHERE {condition}"
)

# ATTACH takes this very lock. ONLY, or it would be that of all partitions.
TRY_LOCK = """
CREATE FUNCTION gateway_try_lock(parent text) RETURNS boolean LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    EXECUTE format('LOCK TABLE ONLY %I IN SHARE UPDATE EXCLUSIVE MODE NOWAIT', parent);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$
"""
ADVISORY = "pg_try_advisory_xact_lock(hashtextextended('gateway_make_partition', 0))"
OF_TABLE = "gateway_try_lock(parent)"


def upgrade() -> None:
    op.execute(READERS)
    for table, columns in COLUMNS.items():
        op.execute(f"DROP VIEW tenant_{table}")
        _make_function(table, columns, "", "")
        if table in OF_DEVICE:
            _make_function(table, columns, OF_DEVICE[table], " AND x.device_id = device")
        op.execute(VIEW.format(table=table))
    if _has_partitions():
        op.execute(TRY_LOCK)
        op.execute("REVOKE EXECUTE ON FUNCTION gateway_try_lock FROM PUBLIC")
        _lock_partitions_by(OF_TABLE, instead_of=ADVISORY)


def downgrade() -> None:
    if _has_partitions():
        _lock_partitions_by(ADVISORY, instead_of=OF_TABLE)
        op.execute("DROP FUNCTION gateway_try_lock")
    for table in COLUMNS:
        op.execute(f"DROP VIEW tenant_{table}")
        op.execute(f"DROP FUNCTION tenant_{table}(timestamptz, timestamptz)")
        if table in OF_DEVICE:
            op.execute(f"DROP FUNCTION tenant_{table}(uuid, timestamptz, timestamptz)")
        op.execute(OLD_VIEW.format(table=table, names=_names(table), condition=OLD_CONDITION))
    op.execute("DROP TABLE telemetry_readers")


def _make_function(table: str, columns: str, arguments: str, condition: str) -> None:
    names = ", ".join(f"x.{name}" for name in _names(table).split(", "))
    values = {"table": table, "columns": columns, "arguments": arguments, "condition": condition}
    op.execute(FUNCTION.format(names=names, **values))
    signature = ", ".join(["uuid"] * bool(arguments) + ["timestamptz", "timestamptz"])
    op.execute(f"REVOKE EXECUTE ON FUNCTION tenant_{table}({signature}) FROM PUBLIC")


def _names(table: str) -> str:
    return ", ".join(column.split()[0] for column in COLUMNS[table].split(", "))


def _has_partitions() -> bool:
    """Also where the extension came later than the tables."""
    query = "SELECT to_regproc('gateway_make_partition')"
    return not hypertables() and op.get_bind().exec_driver_sql(query).scalar() is not None


def _lock_partitions_by(lock: str, *, instead_of: str) -> None:
    """Change one expression of ``gateway_make_partition``, as 0008 made it."""
    query = "SELECT pg_get_functiondef('gateway_make_partition'::regproc)"
    made = op.get_bind().exec_driver_sql(query).scalar_one()
    op.execute(made.replace(instead_of, lock))
