"""The gateway's copy of the connections: cache, snapshot on disk, and activity (last synced)."""
