"""The commands. Each group of commands is a module with `register(app)`."""
