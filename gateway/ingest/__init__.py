"""The path of a message: from a delivery of the source to a batch of the writer."""
