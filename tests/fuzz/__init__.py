"""Fuzz targets: one file a parser of foreign bytes. `make test` gives each some seconds, `make fuzz` an hour to all."""
