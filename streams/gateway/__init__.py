"""The gateway receives OTLP over HTTP and gRPC and writes to Kafka. A 200 means that the request is stored durably.

http         the HTTP server: connections, request bodies, responses, TLS
grpc         OTLP/gRPC, behind the same acceptance
acceptance   one request: auth, quotas, decompression, ingest, and the destination that makes it durable
connections  the registry of connections, cached from their compacted topic, with a snapshot on disk
delivery     group commit to Kafka within 250 ms, else to the spool; the producer; the drain of the spool
spool        SQLite files, fsynced: messages that Kafka has not acknowledged yet
quarantine   requests that cannot be authorized while Kafka is unavailable
service      starts and stops all of it
"""

from tallystream.streams.gateway.config import GatewayConfig
from tallystream.streams.gateway.service import Gateway

__all__ = ["Gateway", "GatewayConfig"]
