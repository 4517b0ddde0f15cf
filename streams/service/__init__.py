"""Parts that every long-running component needs: ops server, clock, backoff, HTTP client and log throttle."""
