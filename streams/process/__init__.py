"""Child processes: starting, binding to a parent's death, and free TCP ports."""
