"""For programs under libfaketime: 0.9.10 breaks clock_nanosleep until an instant, which Python's own sleep uses."""

import select
import time


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = _sleep  # type: ignore[assignment]
