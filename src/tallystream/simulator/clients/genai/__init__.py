"""Programs that are counted by their GenAI spans."""
