"""What runs when a task has ended: its reactions, and what they are told."""
