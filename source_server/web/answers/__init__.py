"""What goes out: the domain's values as JSON."""
