"""What runs on a volunteer's machine: the client, its job runtimes, and the launcher that starts it."""
