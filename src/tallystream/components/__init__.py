"""Each module builds one component from the settings and runs it until it is told to stop."""
