"""What the volunteer allows: policy.toml, the machine's state, and what follows from both."""
