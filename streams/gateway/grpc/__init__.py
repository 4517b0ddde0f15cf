"""OTLP over gRPC, behind the same acceptance as OTLP over HTTP."""

from tallystream.streams.gateway.grpc.server import GrpcServer

__all__ = ["GrpcServer"]
