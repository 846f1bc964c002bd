"""Chunks are handed out: dealt by `/assign`, claimed by `/next`; projects take turns."""
