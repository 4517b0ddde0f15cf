"""The HTTP surface of the gateway: server, handler, body, responses, TLS."""
