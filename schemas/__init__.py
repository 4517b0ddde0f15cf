"""The data model: usage events, cost rows, connections and dead letters, and the rules that turn clients' telemetry
into them.

Nothing here does I/O, reads a clock or talks to Kafka, so every rule of the product can be tested as a pure function.
"""
