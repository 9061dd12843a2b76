"""Servers on this machine, for demo, bench and tests: how each is found, configured, started and surely ended."""
