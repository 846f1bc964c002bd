"""The command line of the fault run; `scripts/chaos` sets up what it needs and starts it."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from faults.clocks import HOUR_S, NoFaketime, find_library
from faults.programs import CannotGoOn
from faults.report import say
from faults.roster import LEAST_CLIENTS
from faults.run import Options, Run
from source_server.stores.mongod_binary import MongodUnavailable, find_mongod, read_version

RIGHT, WRONG, CANNOT = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run; 0 when everything is as it must be, 1 when something is not, 2 when it cannot be tried."""
    chosen = _options(argv)
    print(f"seed {chosen.seed}: it replays these faults, not the order in which threads run", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="dockercomp-faults-"))
    folder.chmod(0o755)  # jobs of a root's clients run as another user, who has to get here
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(chosen, folder)
    except (MongodUnavailable, NoFaketime) as error:
        print(f"Error: {error}", file=sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        say("stopped; nothing was checked")
        return 130
    finally:
        if chosen.keep:
            say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _run(chosen: argparse.Namespace, folder: Path) -> int:
    mongod = find_mongod(_named_mongod(), search_path=os.environ.get("PATH"), copy_to=folder)
    read_version(mongod)
    options = Options(
        seed=chosen.seed,
        seconds=chosen.minutes * 60,
        chunks=chosen.chunks,
        clients=chosen.clients,
        drain_s=chosen.drain_minutes * 60,
        clock_s=_clock_s(),
    )
    began = time.monotonic()
    run = Run(options, folder, mongod)
    try:
        found = run.go()
    except CannotGoOn as error:
        found = [str(error)]
    print(run.summary())
    for sentence in found:
        print(f"WRONG: {sentence}")
    verdict = f"{len(found)} things are wrong" if found else "everything is as it must be"
    print(f"seed {chosen.seed}: {verdict}, after {time.monotonic() - began:.0f} s", flush=True)
    return WRONG if found else RIGHT


def _clock_s() -> int:
    """How wrong clocks are; 0 at home where that cannot be had."""
    try:
        find_library()
    except NoFaketime as error:
        if os.environ.get("CI") == "true":
            raise
        say(f"left out: {error}")
        return 0
    return HOUR_S


def _named_mongod() -> Path | None:
    named = os.environ.get("DOCKERCOMP_MONGOD")
    return Path(named) if named else None


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos",
        description="Break a real replica set, servers, housekeepers and clients on purpose, and check what they did.",
        epilog="Examples:\n  scripts/chaos                             two minutes of faults, 5000 chunks\n"
        "  scripts/chaos --minutes 480 --keep        over night, with all logs kept\n"
        "  scripts/chaos --seed 4711                 the faults of that run again\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--minutes", type=_number(2), default=2.0, help="of faults, at least 2; then the work is finished (2)"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="random")
    parser.add_argument(
        "--chunks", type=_whole(5000), default=5000, help="at least so many, 5000 or more (5000)"
    )
    parser.add_argument(
        "--clients", type=_whole(LEAST_CLIENTS), default=LEAST_CLIENTS, help=f"{LEAST_CLIENTS} or more"
    )
    parser.add_argument(
        "--drain-minutes", type=_number(0), default=5.0, help="to finish the work without faults (5)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder with data and logs")
    return parser.parse_args(argv)


def _number(low: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not float(text) >= low:
            raise argparse.ArgumentTypeError(f"must be {low:g} or more, not {text}")
        return float(text)

    return parse


def _whole(low: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if int(text) < low:
            raise argparse.ArgumentTypeError(f"must be {low} or more, not {text}")
        return int(text)

    return parse


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
