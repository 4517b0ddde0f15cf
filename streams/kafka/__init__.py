"""The Kafka client kit: settings, client lifecycle, topics, readers, followers and lag."""
