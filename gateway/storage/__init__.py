"""Connections, migrations, and what kind of database this is."""
