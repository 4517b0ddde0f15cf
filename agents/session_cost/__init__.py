"""The agent that turns usage events into priced rows per session and hour."""
