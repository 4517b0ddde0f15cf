"""What the sink knows of Port: sent (the topic port.sent), in_doubt (what may be under way), retention and reset."""
