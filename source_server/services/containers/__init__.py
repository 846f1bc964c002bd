"""Volunteers' containers and hosts: they come, beat, leave, and give back what they held."""
