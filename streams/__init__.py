"""How it moves: topics, the exact runtime on Faust, the gateway with its spool, the embedded Kafka.

Knows no prices and no Port; imports `tallystream.schemas` only.
"""
