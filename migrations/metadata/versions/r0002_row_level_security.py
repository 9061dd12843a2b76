"""Row-level security by app.current_tenant_id.

The owner and roles with BYPASSRLS see all tenants. Compared as text: a setting that is unset, empty or no
UUID at all shows nothing, rather than failing.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

OF_TENANT = "{column}::text = current_setting('app.current_tenant_id', true)"
CONDITIONS = {
    "tenants": OF_TENANT.format(column="id"),
    "device_types": OF_TENANT.format(column="tenant_id"),
    "devices": OF_TENANT.format(column="tenant_id"),
    "field_mappings": "EXISTS (SELECT FROM device_types t WHERE t.id = device_type_id AND "
    + OF_TENANT.format(column="t.tenant_id")
    + ")",
}


def upgrade() -> None:
    for table, condition in CONDITIONS.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant_isolation ON {table} USING ({condition})")


def downgrade() -> None:
    for table in CONDITIONS:
        op.execute(f"DROP POLICY tenant_isolation ON {table}")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
