"""Work that comes in from outside: events are stored first and become tasks afterwards."""
