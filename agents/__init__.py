"""The agents that compute results: prices, cost rows, joined calls, reconciliation. Each is next to the pure functions
it uses.
"""
