"""Tasks from their making to their removal: data, states, rounds, limits, and what housekeeping owes them."""
