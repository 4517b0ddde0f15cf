"""Group commit to Kafka, the producer with its circuit breaker, and the drain of the spool."""
