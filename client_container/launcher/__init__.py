"""The service on a volunteer's host that alone talks to Docker."""
