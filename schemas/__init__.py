"""What flows: usage events, cost rows, connections, dead letters, and how clients' telemetry becomes them.

Nothing here does I/O, reads a clock or knows Kafka, so every rule of the product can be tested as a pure function.
"""
