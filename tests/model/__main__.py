"""The model check by hand: every setting, or those named, with more of everything if asked for.

PYTHONPATH=tests:. python -m model [--deep] [--most STATES] [WORDS OF A NAME]
"""

from __future__ import annotations

import argparse
import sys
import time

from model.cases import DEEP, SETTINGS
from model.explorer import explore
from model.protocol import Protocol


def main(arguments: list[str]) -> int:
    """Explore and print; 1 if a property does not hold, 2 for a setting that does not exist."""
    parser = argparse.ArgumentParser(prog="scripts/model-check", description="Check the model of dispatch.")
    parser.add_argument("name", nargs="?", default="", help="part of a setting's name; default: all")
    parser.add_argument("--deep", action="store_true", help="the large settings (minutes each, gigabytes)")
    parser.add_argument("--most", type=int, default=1_000_000, help="states at most for each setting")
    asked = parser.parse_args(arguments)
    chosen = [one for one in (DEEP if asked.deep else SETTINGS) if asked.name in one.name]
    if not chosen:
        print(f"There is no setting with {asked.name!r} in its name.", file=sys.stderr)
        return 2
    sound = True
    for setting in chosen:
        begun = time.monotonic()
        report = explore(Protocol(setting), most=asked.most)
        print(f"{setting.name} ({time.monotonic() - begun:.0f} s)\n  {report}", flush=True)
        sound = sound and not report.violations
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
