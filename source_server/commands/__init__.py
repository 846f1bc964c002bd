"""The commands of `dockercomp-server`, one file a subject; heavy imports happen inside the commands."""
