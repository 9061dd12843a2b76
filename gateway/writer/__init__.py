"""From a batch to committed rows."""
