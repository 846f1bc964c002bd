"""The body of a request, which has a limit whether its length was told or not, and has to come in time."""

from __future__ import annotations

from typing import Any

from flask import Request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from source_server.web.http.paced_body import Paced


class BoundedRequest(Request):
    """A chunked body over the limit is refused; the framework would cut it off in silence, and find bad JSON.

    Whoever reads it, whole or as a stream: all of its body is paced.
    """

    def __init__(self, environ: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        connection = environ.get("gunicorn.socket")
        if connection is not None and not isinstance(environ["wsgi.input"], Paced):
            environ["wsgi.input"] = Paced(environ["wsgi.input"], connection)
        super().__init__(environ, *args, **kwargs)

    def get_data(self, *args: Any, **kwargs: Any) -> Any:
        """The whole body; raises RequestEntityTooLarge, or ClientDisconnected where it broke off."""
        body = super().get_data(*args, **kwargs)
        most = self.max_content_length
        if self.content_length is None and most is not None and len(body) >= most:
            raise RequestEntityTooLarge()
        if self.content_length is not None and len(body) < self.content_length:
            raise ClientDisconnected()
        return body
