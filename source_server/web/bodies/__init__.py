"""What comes in: the shapes of messages, and the domain's values that they make."""
