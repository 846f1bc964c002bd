"""Job containers: strangers' programs in a sandbox, from a client's request to what is kept of it."""
