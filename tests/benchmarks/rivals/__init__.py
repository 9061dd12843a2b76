"""Others that do what the gateway does, for ``make bench``; the package does not know them."""
