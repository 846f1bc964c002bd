"""Trying every denial of the sandbox and of the wall, at the installation and every week."""
