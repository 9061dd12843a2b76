"""Sessions at the broker, as far as they outlive a connection and a process."""
