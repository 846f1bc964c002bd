"""Answers as tables and files."""
