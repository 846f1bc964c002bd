"""Pure rules: what a chunk, a task and a container are, and what may follow what. No I/O, no clock."""
