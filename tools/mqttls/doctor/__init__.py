"""Why a connection fails: a peek, the files, the broker's log, a real attempt, a verdict."""
