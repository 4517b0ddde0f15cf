"""Runs the components of one machine as processes: starts them in order, restarts what ends, stops them in order."""
