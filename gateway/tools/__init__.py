"""What is built on top of the gateway: the demo and the bench. Nothing below imports it."""
