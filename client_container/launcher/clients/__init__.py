"""Client containers: what they should be, and keeping as many of them alive as are wanted."""
