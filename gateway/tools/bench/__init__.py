"""Measure an installation, or this machine: the gateway as an ordinary process, loads and rivals as others."""
