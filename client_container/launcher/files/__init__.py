"""Folders that strangers write in, reached by descriptor: nothing here follows a link."""
