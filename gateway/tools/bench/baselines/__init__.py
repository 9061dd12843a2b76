"""What broker and database can do by themselves: figures of a gateway mean something beside these."""
