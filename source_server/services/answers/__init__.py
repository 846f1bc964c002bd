"""Attempts are taken in: stored for good, counted for their chunk, judged; hosts' records follow."""
