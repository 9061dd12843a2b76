"""What runs: the daemon, its workers, and the jobs of commands that need a path of their own."""
