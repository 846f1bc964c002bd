"""The model check by hand: every setting, or those named, with more of everything if asked for.

PYTHONPATH=tests:. python -m model [--deep] [--most STATES] [WORDS OF A NAME]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from model import cases, reacting_cases
from model.explorer import Report, explore
from model.protocol import Protocol
from model.reacting import Ending

Check = Callable[[int], Report]  #: told how many states it may look at


def main(arguments: list[str]) -> int:
    """Explore and print; 1 if a property does not hold, 2 for a setting that does not exist."""
    parser = argparse.ArgumentParser(prog="scripts/model-check", description="Check the model of dispatch.")
    parser.add_argument("name", nargs="?", default="", help="part of a setting's name; default: all")
    parser.add_argument("--deep", action="store_true", help="the large settings (minutes each, gigabytes)")
    parser.add_argument("--most", type=int, default=1_000_000, help="states at most for each setting")
    asked = parser.parse_args(arguments)
    chosen = {name: check for name, check in _checks(deep=asked.deep).items() if asked.name in name}
    if not chosen:
        print(f"There is no setting with {asked.name!r} in its name.", file=sys.stderr)
        return 2
    sound = True
    for name, check in chosen.items():
        begun = time.monotonic()
        report = check(asked.most)
        print(f"{name} ({time.monotonic() - begun:.0f} s)\n  {report}", flush=True)
        sound = sound and not report.violations
    return 0 if sound else 1


def _checks(*, deep: bool) -> dict[str, Check]:
    """By the name of the setting: of dispatch, and of a task's end."""
    checks: dict[str, Check] = {}
    for setting in cases.DEEP if deep else cases.SETTINGS:
        checks[setting.name] = lambda most, one=setting: explore(Protocol(one), most=most)  # type: ignore[misc]
    for end in reacting_cases.DEEP if deep else reacting_cases.SETTINGS:
        checks[end.name] = lambda most, one=end: explore(Ending(one), most=most)  # type: ignore[misc]
    return checks


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
