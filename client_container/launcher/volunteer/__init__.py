"""The volunteer's command, `dockercomp-volunteer`."""
