"""Reference pages generated from the code: metrics and topics."""
