"""Which device is this, and how devices come to be known."""
