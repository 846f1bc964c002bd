"""Why something is so, in words: chunks, attempts, failures, warnings."""
