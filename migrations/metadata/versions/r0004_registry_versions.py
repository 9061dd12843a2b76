"""How often the registry changed, so that a gateway that hears no NOTIFY notices changes all the same.

``registry_versions`` holds a count in parts, one for each server process (modulo 1000), so that transactions that
change the registry do not wait for each other; their sum rises by one with each notification, and only when its
transaction is committed, which a sequence would not. Undo takes the table away.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLE = "CREATE TABLE registry_versions (part smallint PRIMARY KEY, version bigint NOT NULL)"

# Whoever may change the registry may count it; the part tells apart what two transactions do at once, and makes every
# notification unlike the others, for PostgreSQL merges equal ones of a transaction.
NOTIFY = """
CREATE FUNCTION gateway_notify_change(change jsonb) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    counted bigint;
BEGIN
    INSERT INTO registry_versions AS kept (part, version) VALUES (pg_backend_pid() % 1000, 1)
    ON CONFLICT (part) DO UPDATE SET version = kept.version + 1 RETURNING version INTO counted;
    PERFORM pg_notify('gateway_registry',
        (change || jsonb_build_object('count', (pg_backend_pid() % 1000) || '.' || counted))::text);
END
$$
"""

NOTIFY_REGISTRY = """
CREATE OR REPLACE FUNCTION gateway_notify_registry() RETURNS trigger LANGUAGE plpgsql AS $$
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
        PERFORM {call}json_build_object(
            'table', TG_TABLE_NAME,
            'op', TG_OP,
            'ids', CASE WHEN cardinality(changed) <= 50 THEN to_json(changed) END
        ){end});
    END IF;
    RETURN NULL;
END
$$
"""

NOTIFY_TRUNCATE = """
CREATE OR REPLACE FUNCTION gateway_notify_registry_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {call}json_build_object('table', TG_TABLE_NAME, 'op', 'DELETE', 'ids', NULL){end});
    RETURN NULL;
END
$$
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute(NOTIFY)
    for function in (NOTIFY_REGISTRY, NOTIFY_TRUNCATE):
        op.execute(function.format(call="gateway_notify_change(", end="::jsonb"))


def downgrade() -> None:
    for function in (NOTIFY_REGISTRY, NOTIFY_TRUNCATE):
        op.execute(function.format(call="pg_notify('gateway_registry', ", end="::text"))
    op.execute("DROP FUNCTION gateway_notify_change")
    op.execute("DROP TABLE registry_versions")
