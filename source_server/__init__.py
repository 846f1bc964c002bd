"""The source server: deals data chunks to client containers and keeps every result against its origin."""
