"""The scientist's library and command: everything over HTTP, nothing else of the server's."""
