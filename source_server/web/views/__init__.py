"""A file for each subject: reads the request, asks a service, answers."""
