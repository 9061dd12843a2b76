"""How the daemon is seen: events, logs, metrics, health, and how to ask for them."""
