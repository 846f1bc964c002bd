"""Releases for volunteers: a folder of signed files, made away from the server and only served by it."""
