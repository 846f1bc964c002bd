"""Job images: how they arrive, what is checked first, and how the room they take stays bounded."""
