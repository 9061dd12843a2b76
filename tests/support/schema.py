"""What a database holds, as its catalogue tells: to compare schemas, and to find what was left behind."""

from __future__ import annotations

from tests.support.sql import query

# What extensions own is theirs; partitions and chunks come and go with time.
_SCHEMA = r"""
WITH ours AS (
    SELECT c.oid, c.relname, c.relkind, c.relrowsecurity, c.relacl, c.reloptions FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition AND c.relkind IN ('r', 'p', 'v', 'S')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
)
SELECT format('%s %s rls=%s acl=%s options=%s', relkind, relname, relrowsecurity, relacl, reloptions) AS line FROM ours
UNION ALL
SELECT format('column %s.%s %s not_null=%s default=%s', o.relname, a.attname, format_type(a.atttypid, a.atttypmod),
    a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
FROM ours o JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = o.oid AND d.adnum = a.attnum
UNION ALL
SELECT format('constraint %s %s', conname, pg_get_constraintdef(c.oid))
FROM ours o JOIN pg_constraint c ON conrelid = o.oid
UNION ALL SELECT pg_get_indexdef(indexrelid) FROM ours o JOIN pg_index i ON i.indrelid = o.oid
UNION ALL SELECT pg_get_triggerdef(t.oid) FROM ours o JOIN pg_trigger t ON tgrelid = o.oid AND NOT tgisinternal
UNION ALL SELECT format('policy %s %s', polrelid::regclass, pg_get_expr(polqual, polrelid)) FROM pg_policy
UNION ALL SELECT format('view %s %s', relname, pg_get_viewdef(oid)) FROM ours WHERE relkind = 'v'
UNION ALL
SELECT pg_get_functiondef(p.oid) || coalesce(p.proacl::text, '') FROM pg_proc p
WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
ORDER BY 1
"""

_LEFT = """
SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
UNION ALL
SELECT p.proname::text FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT t.typname::text FROM pg_type t WHERE t.typnamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = t.oid AND d.deptype IN ('e', 'i'))
"""


def schema(dsn: str) -> list[str]:
    """Every table, column, constraint, index, trigger, policy, view and function of ours, a line each."""
    return [row[0] for row in query(dsn, _SCHEMA)]


def leftovers(dsn: str) -> list[str]:
    """Names of all relations, functions and types of ours."""
    return [row[0] for row in query(dsn, _LEFT)]
