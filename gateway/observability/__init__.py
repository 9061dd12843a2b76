"""How the daemon is seen: events, logs, metrics, health, and who asks for them."""
