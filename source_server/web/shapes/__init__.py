"""The shapes of answers, for `/openapi.json`; the tests hold every answer of the server to them.

What may be absent has a default; what is there but may be null says so.
"""
