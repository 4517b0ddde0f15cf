"""Runs the components of one machine as processes. Starts and stops them in order, and restarts those that exit."""
