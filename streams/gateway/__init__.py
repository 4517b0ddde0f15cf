"""The gateway: OTLP over HTTP in, Kafka out; a 200 means that nothing of the request can be lost any more.

listener  the listening server
server    one request: paths, auth, body, ingest, delivery, answer
paths     body  auth  ingest  replies  errors: the steps of it
delivery  group commit to Kafka within 250 ms, else to the spool
link      the idempotent producer, made anew when it fails or is stuck
spool     SQLite, fsynced; spool_thread owns the file, spool_slots says whose it is; drain empties it
registry  the connections, from their compacted topic; snapshot on disk
quarantine  requests nobody can judge while Kafka is away
activity  last synced, per connection and signal
service   all of it, started and stopped
"""

from tallystream.streams.gateway.config import GatewayConfig
from tallystream.streams.gateway.service import Gateway

__all__ = ["Gateway", "GatewayConfig"]
