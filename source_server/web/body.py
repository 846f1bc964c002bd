"""The body of a request, which has a limit whether its length was told or not."""

from __future__ import annotations

from typing import Any

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge


class BoundedRequest(Request):
    """A chunked body over the limit is refused; the framework would cut it off in silence, and find bad JSON."""

    def get_data(self, *args: Any, **kwargs: Any) -> Any:
        """The whole body; raises RequestEntityTooLarge."""
        body = super().get_data(*args, **kwargs)
        most = self.max_content_length
        if self.content_length is None and most is not None and len(body) >= most:
            raise RequestEntityTooLarge()
        return body
