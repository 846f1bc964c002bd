"""Larger data: blobs, their way in and out, who may read them, and their end; images and releases."""
