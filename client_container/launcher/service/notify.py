"""Telling systemd how the service is: the few bytes that sd_notify(3) sends."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import MutableMapping


class Notifier:
    """The way to the service manager that started this process."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take the address out of `environment`: programs that we start must not answer in our place."""
        self._address = environment.pop("NOTIFY_SOCKET", "")

    def __call__(self, *lines: str) -> None:
        """Tell it lines like "READY=1"; without a manager, or when it does not listen, nothing happens."""
        if not self._address:
            return
        path = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(1)
            sender.sendto("\n".join(lines).encode(), path)
