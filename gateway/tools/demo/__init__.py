"""``gateway demo``: a simulated fleet, a real broker, the real daemon, a real PostgreSQL, in one folder."""
