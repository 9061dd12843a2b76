"""Readers bound to their tenant, and a registry whose changes are read, not told.

A log-in sees the tenant that ``registry_readers`` names for it, by functions that run as the owner: ``session_user`` is
what a session cannot change, and EXPLAIN shows nothing of what a function reads, where a view or a policy lets it
count other tenants' rows. ``registry_versions`` keeps the latest changes themselves: any role may LISTEN, NOTIFY, and
fill the queue until no transaction that notifies can commit. Undo brings both back as they were.
"""

from alembic import op

revision = "0006"
down_revision = "0004"

READERS = """
CREATE TABLE registry_readers (
    role name PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    bound_at timestamptz NOT NULL DEFAULT now()
)
"""

OWN = "(SELECT r.tenant_id FROM registry_readers r WHERE r.role = session_user)"
VIEWS = {
    "tenant": ("tenants", f"x.id = {OWN}"),
    "tenant_device_types": ("device_types", f"x.tenant_id = {OWN}"),
    "tenant_devices": ("devices", f"x.tenant_id = {OWN}"),
    "tenant_field_mappings": (
        "field_mappings",
        f"x.device_type_id IN (SELECT t.id FROM device_types t WHERE t.tenant_id = {OWN})",
    ),
}

FUNCTION = """
CREATE FUNCTION {view}() RETURNS SETOF {table} LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, pg_temp AS $$ SELECT x.* FROM {table} x WHERE {condition} $$
"""

KEPT = 8
"""Changes that a part keeps: a gateway that looks twice a second misses none of a session's ordinary ones."""

COUNT = f"""
CREATE OR REPLACE FUNCTION gateway_notify_change(change jsonb) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO registry_versions AS kept (part, version, recent)
    VALUES (pg_backend_pid() % 1000, 1, ARRAY[change])
    ON CONFLICT (part) DO UPDATE SET version = kept.version + 1,
        recent = (kept.recent || change)[greatest(1, cardinality(kept.recent) + 2 - {KEPT}):];
END
$$
"""

# As 0004 made it.
NOTIFY = """
CREATE OR REPLACE FUNCTION gateway_notify_change(change jsonb) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
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


def upgrade() -> None:
    op.execute(READERS)
    for view, (table, condition) in VIEWS.items():
        op.execute(FUNCTION.format(view=view, table=table, condition=condition))
        op.execute(f"REVOKE EXECUTE ON FUNCTION {view}() FROM PUBLIC")
        op.execute(f"CREATE VIEW {view} AS SELECT * FROM {view}()")
    op.execute("ALTER TABLE registry_versions ADD COLUMN recent jsonb[] NOT NULL DEFAULT '{}'")
    op.execute(COUNT)


def downgrade() -> None:
    op.execute(NOTIFY)
    op.execute("ALTER TABLE registry_versions DROP COLUMN recent")
    for view in VIEWS:
        op.execute(f"DROP VIEW {view}")
        op.execute(f"DROP FUNCTION {view}()")
    op.execute("DROP TABLE registry_readers")
