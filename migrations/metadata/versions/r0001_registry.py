"""Tenants, device types with their fields, devices.

Undo drops the registry: tenants, types and devices are lost.
"""

from alembic import op

revision = "0001"
down_revision = None

TENANTS = """
CREATE TABLE tenants (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    slug text NOT NULL UNIQUE CHECK (slug <> ''),
    name text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
)
"""

DEVICE_TYPES = """
CREATE TABLE device_types (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants,
    name text NOT NULL CHECK (name <> ''),
    description text NOT NULL DEFAULT '',
    violations text NOT NULL DEFAULT 'flag' CHECK (violations IN ('flag', 'reject')),
    unknown_fields text NOT NULL DEFAULT 'keep' CHECK (unknown_fields IN ('keep', 'drop', 'reject')),
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name)
)
"""

FIELD_MAPPINGS = """
CREATE TABLE field_mappings (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    device_type_id uuid NOT NULL REFERENCES device_types ON DELETE CASCADE,
    field_name text NOT NULL CHECK (field_name <> ''),
    friendly_name text,
    data_type text NOT NULL CHECK (data_type IN ('float', 'int', 'bool', 'text', 'json')),
    unit text,
    min_value double precision,
    max_value double precision,
    is_required boolean NOT NULL DEFAULT false,
    is_queryable boolean NOT NULL DEFAULT true,
    position integer NOT NULL DEFAULT 0,
    UNIQUE (device_type_id, field_name),
    CHECK (min_value <= max_value)
)
"""

# The serial number is bounded so that it always fits into an index entry (2704 bytes).
DEVICES = """
CREATE TABLE devices (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants,
    device_type_id uuid NOT NULL REFERENCES device_types,
    serial_number text NOT NULL CHECK (length(serial_number) BETWEEN 1 AND 255),
    name text,
    location text,
    metadata jsonb NOT NULL DEFAULT '{}',
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
    last_seen_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, serial_number)
)
"""

INDEXES = (
    "CREATE INDEX devices_tenant ON devices (tenant_id)",
    "CREATE INDEX devices_device_type ON devices (device_type_id)",
    "CREATE INDEX devices_serial_number ON devices (serial_number)",
)


def upgrade() -> None:
    for statement in (TENANTS, DEVICE_TYPES, FIELD_MAPPINGS, DEVICES, *INDEXES):
        op.execute(statement)


def downgrade() -> None:
    for table in ("devices", "field_mappings", "device_types", "tenants"):
        op.execute(f"DROP TABLE {table}")
