"""`dockercomp.yml`: a task as a file beside the code."""
