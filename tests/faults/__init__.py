"""The fault run: the real product on a real replica set, broken on purpose all the time; what it did is checked after.

Run it with `scripts/chaos`, or `PYTHONPATH=tests python -m faults` from the top of the repository.
"""
