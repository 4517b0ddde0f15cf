"""Output of the commands: tables, times and progress bars."""
