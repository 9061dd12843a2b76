"""MQTT to TimescaleDB ingestion gateway."""

__version__ = "0.1.0"
