"""How the commands show things: tables, times, progress and client configuration."""
