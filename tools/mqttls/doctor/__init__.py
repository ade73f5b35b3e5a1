"""What is wrong with a connection: a peek, the files, the broker's log, a real attempt, a verdict."""
