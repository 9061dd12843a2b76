"""All that is asked of ``dead_letters`` and ``dead_letter_hours``, but for what the schema's own functions do."""

from __future__ import annotations

from gateway.outcomes import Outcome

COLUMNS = (
    "id", "received_at", "stream", "topic", "payload", "reason", "detail", "tenant", "device", "qos", "retained",
    "properties", "payload_bytes", "payload_digest",
)  # fmt: skip
"""Of a new one, in the order in which :mod:`gateway.writer.letters` gives them."""
READ = ", ".join((*COLUMNS[:-2], "replays", "replayed_at", "replay_outcome", *COLUMNS[-2:]))

_STORED, _FAILED = f"'{Outcome.STORED}'", f"'{Outcome.DEAD_LETTERED}'"
_STANDS = f"(replay_outcome IS NULL OR replay_outcome NOT IN ({_STORED}, '{Outcome.DUPLICATE}'))"
"""No replay has stored it."""
_REPLAYED = "UPDATE dead_letters SET replays = replays + 1, replayed_at = now(), replay_outcome = "

# ---------------------------------------------------------------- written

INSERT = (
    f"INSERT INTO dead_letters ({', '.join(COLUMNS)}) "
    f"VALUES ({', '.join(f'${n}' for n in range(1, len(COLUMNS) + 1))}) ON CONFLICT (id) DO NOTHING"
)
ENTER_BYTES = """
INSERT INTO dead_letter_hours AS known (hour, key, stream, tenant, device, bytes)
SELECT date_trunc('hour', now()), * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::bigint[])
ORDER BY 2 ON CONFLICT (hour, key) DO UPDATE SET bytes = known.bytes + excluded.bytes
RETURNING key, bytes
"""
# Sorted, so that two transactions never wait for each other in a circle.
COUNT_NOT_KEPT = """
UPDATE dead_letter_hours AS known SET not_kept = not_kept + given.count
FROM unnest($1::bytea[], $2::bigint[]) AS given (key, count)
WHERE known.hour = date_trunc('hour', now()) AND known.key = given.key
"""

# ---------------------------------------------------------------- replayed

NOTE_STORED = f"{_REPLAYED}{_STORED} WHERE id = ANY($1::uuid[]) AND {_STANDS} RETURNING id"
THERE = "SELECT id FROM dead_letters WHERE id = ANY($1::uuid[])"
NOTE_FAILED = f"""
{_REPLAYED}{_FAILED}, stream = $2, reason = $3, detail = $4, tenant = $5, device = $6
WHERE id = $1 AND {_STANDS}
"""
NOTE_FAILED_OUTSIDE = f"{_REPLAYED}{_FAILED}, reason = $2, detail = $3 WHERE id = $1"

# ---------------------------------------------------------------- read

_SELECTED = f"""($1::uuid[] IS NULL OR id = ANY($1)) AND ($2::text IS NULL OR reason = $2)
AND ($3::text IS NULL OR stream = $3) AND ($4::text IS NULL OR device = $4)
AND ($5::timestamptz IS NULL OR received_at >= $5) AND ($8::timestamptz IS NULL OR received_at < $8)
AND ($7::text IS NULL OR tenant = $7)
AND ($6 OR {_STANDS})"""
"""By the arguments of :class:`gateway.writer.dead_letters.Selection`."""
_PAGE = f"SELECT {READ} FROM dead_letters WHERE {_SELECTED} AND {{order}} LIMIT $11 OFFSET $12"
NEWEST_FIRST = _PAGE.format(
    order="($9::timestamptz IS NULL OR (received_at, id) < ($9, $10::uuid)) ORDER BY received_at DESC, id DESC"
)
OLDEST_FIRST = _PAGE.format(
    order="($9::timestamptz IS NULL OR (received_at, id) > ($9, $10::uuid)) ORDER BY received_at, id"
)
COUNT = f"SELECT count(*) FROM dead_letters WHERE {_SELECTED}"
BY_REASON = (
    f"SELECT reason, count(*), min(received_at), max(received_at) FROM dead_letters WHERE {_SELECTED} "
    "GROUP BY reason ORDER BY count(*) DESC, reason"
)
NOT_KEPT = """
SELECT coalesce(sum(not_kept), 0) FROM dead_letter_hours
WHERE ($1::text IS NULL OR stream = $1) AND ($2::text IS NULL OR tenant = $2) AND ($3::text IS NULL OR device = $3)
AND ($4::timestamptz IS NULL OR hour >= date_trunc('hour', $4)) AND ($5::timestamptz IS NULL OR hour < $5)
"""

# ---------------------------------------------------------------- deleted

PURGE = "SELECT gateway_purge_dead_letters($1, $2)"
