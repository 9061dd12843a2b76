"""What is held between source and database."""
