"""The sink's knowledge of Port: sent (the topic port.sent), in_doubt (what may be under way), retention and reset."""
