"""The line between a client and its launcher: frames, requests, events, names of files. The client uses it, too."""
