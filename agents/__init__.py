"""What is decided: prices, windows, rollups. Each agent beside the pure functions it applies."""
