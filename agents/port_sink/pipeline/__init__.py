"""A changed document becomes an entity: backlog, transform, send queue, sender; resync and samples beside them."""
