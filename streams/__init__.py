"""Data transport: topics, the exactly-once runtime on Faust, the gateway with its spool, the poller and the embedded
Kafka.

Does not depend on prices or on Port; imports only `tallystream.schemas`.
"""
