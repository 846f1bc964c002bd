"""HTTP: a view reads the request, asks a service, answers. Field names belong to `bodies`, `shapes` and `answers`."""
