"""NOTIFY gateway_registry when the registry changes, so that every gateway forgets what it cached.

Payload: ``{"table": "devices", "op": "INSERT|UPDATE|DELETE", "ids": ["…", …] | null}``, at most 50 ids;
null: many, or a TRUNCATE. One notification a statement. Presence (``last_seen_at``) and descriptions of a
device are not cached: an UPDATE of nothing else notifies nobody, or a busy fleet would purge caches all day.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

TABLES = ("tenants", "device_types", "field_mappings", "devices")

# The transition tables exist only in the trigger that declares them; a branch is planned when it first runs.
NOTIFY = """
CREATE FUNCTION gateway_notify_registry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed uuid[];
BEGIN
    IF TG_OP = 'DELETE' THEN
        SELECT array_agg(id) INTO changed FROM (SELECT id FROM old_rows LIMIT 51) AS few;
    ELSIF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'devices' THEN
        SELECT array_agg(id) INTO changed FROM (
            SELECT n.id FROM new_rows n LEFT JOIN old_rows o ON o.id = n.id
            WHERE (n.tenant_id, n.device_type_id, n.serial_number, n.status)
                IS DISTINCT FROM (o.tenant_id, o.device_type_id, o.serial_number, o.status)
            LIMIT 51
        ) AS few;
    ELSE
        SELECT array_agg(id) INTO changed FROM (SELECT id FROM new_rows LIMIT 51) AS few;
    END IF;
    IF changed IS NOT NULL THEN
        PERFORM pg_notify('gateway_registry', json_build_object(
            'table', TG_TABLE_NAME,
            'op', TG_OP,
            'ids', CASE WHEN cardinality(changed) <= 50 THEN to_json(changed) END
        )::text);
    END IF;
    RETURN NULL;
END
$$
"""

NOTIFY_TRUNCATE = """
CREATE FUNCTION gateway_notify_registry_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('gateway_registry', json_build_object(
        'table', TG_TABLE_NAME, 'op', 'DELETE', 'ids', NULL
    )::text);
    RETURN NULL;
END
$$
"""

REFERENCING = {
    "insert": "REFERENCING NEW TABLE AS new_rows",
    "update": "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "REFERENCING OLD TABLE AS old_rows",
}


def upgrade() -> None:
    op.execute(NOTIFY)
    op.execute(NOTIFY_TRUNCATE)
    for table in TABLES:
        for event, referencing in REFERENCING.items():
            op.execute(
                f"CREATE TRIGGER notify_{event} AFTER {event} ON {table} {referencing} "
                "FOR EACH STATEMENT EXECUTE FUNCTION gateway_notify_registry()"
            )
        op.execute(
            f"CREATE TRIGGER notify_truncate AFTER TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION gateway_notify_registry_truncated()"
        )


def downgrade() -> None:
    for table in TABLES:
        for event in (*REFERENCING, "truncate"):
            op.execute(f"DROP TRIGGER notify_{event} ON {table}")
    op.execute("DROP FUNCTION gateway_notify_registry_truncated()")
    op.execute("DROP FUNCTION gateway_notify_registry()")
