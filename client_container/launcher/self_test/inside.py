"""Tries out everything that must not be possible inside a container. Runs alone in there, as `python3 -c` text.

Its one argument is a JSON object: `tries`, the names of the functions below to call, and what they need to know. It
prints one JSON object: for each name [held, sentence].
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Found = tuple[bool, str]
Given = dict[str, Any]

CONNECT_S = 1.5
NEW_USER = 0x10000000  # CLONE_NEWUSER


def network(given: Given) -> Found:
    """No way out at all: no route, and nothing answers."""
    reached = [name for name, is_open in reach(given).items() if is_open]
    with open("/proc/net/route") as table:  # noqa: PTH123
        routes = len(table.readlines()) - 1
    if reached or routes > 0:
        return False, f"reached: {', '.join(reached) or 'nothing'}; {routes} routes"
    return True, f"no route, and none of {len(given['targets'])} addresses answered"


def reach(given: Given) -> dict[str, bool]:
    """Which of the targets let a TCP connection be opened, by name."""

    def is_open(target: list[Any]) -> bool:
        try:
            socket.create_connection((target[0], target[1]), timeout=CONNECT_S).close()
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        return dict(zip(given["targets"], pool.map(is_open, given["targets"].values()), strict=True))


def sockets(given: Given) -> Found:
    """Neither engine nor launcher can be spoken to."""
    seen = [path for path in given["hidden"] if os.path.exists(path)]  # noqa: PTH110
    return not seen, f"it sees {', '.join(seen)}" if seen else "neither engine nor launcher is to be seen"


def user(given: Given) -> Found:
    """Not root, and no way to become it."""
    for become in (os.setuid, os.setgid):
        try:
            become(0)
        except OSError:
            continue
        return False, "it could become root"
    uid = os.getuid()
    return uid == given["uid"] and uid != 0, f"it runs as user {uid} and cannot become root"


def capabilities(_given: Given) -> Found:
    """None at all."""
    held = {name: value for name, value in _status().items() if name.startswith("Cap") and int(value, 16)}
    return not held, f"it has some: {held}" if held else "it has none"


def privileges(_given: Given) -> Found:
    """No program can raise them."""
    held = _status().get("NoNewPrivs") == "1"
    return held, "no program can raise them" if held else "a setuid program could raise them"


def seccomp(_given: Given) -> Found:
    """The engine's filter of system calls is on."""
    made = ctypes.CDLL(None, use_errno=True).unshare(NEW_USER) == 0
    on = _status().get("Seccomp") == "2"
    said = "system calls are filtered" if on else "system calls are not filtered"
    return on and not made, f"{said}; a new user namespace was {'made' if made else 'refused'}"


def _status() -> dict[str, str]:
    with open("/proc/self/status") as file:  # noqa: PTH123
        pairs = (line.split(":", 1) for line in file)
        return {name: value.strip() for name, value in pairs}


def root(given: Given) -> Found:
    """Nothing can be written outside the places that are meant for it, whoever owns them."""
    written = [folder for folder in given["closed"] if not os.statvfs(folder).f_flag & os.ST_RDONLY]
    for folder in given["closed"]:
        path = os.path.join(folder, ".self-test")  # noqa: PTH118
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            os.unlink(path)  # noqa: PTH108
            written.append(folder)
    if written:
        return False, f"not read-only: {', '.join(dict.fromkeys(written))}"
    return True, f"{', '.join(given['closed'])}: read-only"


def programs(_given: Given) -> Found:
    """What a job writes to /tmp cannot be executed, and it can make no devices."""
    path = "/tmp/.self-test"  # noqa: S108
    with contextlib.suppress(OSError):
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 0))
        return False, "it could make a device"
    with open(path, "w+b") as file:  # noqa: PTH123
        file.truncate(mmap.PAGESIZE)
        try:
            mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
        except PermissionError:
            return True, "neither programs in /tmp nor devices"
        finally:
            os.unlink(path)  # noqa: PTH108
    return False, "what it writes to /tmp can be executed"


def fork_bomb(given: Given) -> Found:
    """It is stopped at the limit. Of threads, which count as processes do: so many processes would need more memory."""
    over = threading.Event()
    threading.stack_size(2**16)
    made: list[threading.Thread] = []
    stopped = False
    while not stopped and len(made) < 2 * given["pids"]:
        one = threading.Thread(target=over.wait, daemon=True)
        try:
            one.start()
        except RuntimeError:
            stopped = not _can_fork()
            break
        made.append(one)
    over.set()
    for one in made:
        one.join()
    held = stopped and len(made) <= given["pids"]
    if held:
        return True, f"stopped after {len(made)} threads; a process was refused as well"
    return False, f"not stopped after {len(made)} threads"


def _can_fork() -> bool:
    try:
        child = os.fork()
    except OSError:
        return False
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return True


def open_files(given: Given) -> Found:
    """They are counted, and no core is dumped."""
    opened: list[int] = []
    try:
        while len(opened) < 2 * given["open_files"]:
            opened.append(os.open("/", os.O_RDONLY))
    except OSError as error:
        held = error.errno == errno.EMFILE and resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
        return (
            held,
            f"stopped after {len(opened)} open files; core dumps: {resource.getrlimit(resource.RLIMIT_CORE)[1]}",
        )
    finally:
        for one in opened:
            os.close(one)
    return False, f"not stopped after {2 * given['open_files']} open files"


def file_size(given: Given) -> Found:
    """A file cannot grow beyond what the job may write."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    path, piece, written = f"{given['writable']}/.self-test", bytes(2**20), 0
    try:
        with open(path, "wb", buffering=0) as file:  # noqa: PTH123
            while written < 2 * given["disk"]:
                written += file.write(piece)
    except OSError as error:
        held = error.errno == errno.EFBIG and written <= given["disk"]
        return held, f"stopped after {written >> 20} MiB"
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108
    return False, f"not stopped after {written >> 20} MiB"


def memory(given: Given) -> Found:
    """Does not come back when the limit is in force: the kernel ends it."""
    taken = [bytearray(2**20) for _ in range(2 * given["memory"] // 2**20)]
    return False, f"it could take {len(taken)} MiB"


TRIES: dict[str, Callable[[Given], Found]] = {
    one.__name__: one
    for one in (
        network,
        sockets,
        user,
        capabilities,
        privileges,
        seccomp,
        root,
        programs,
        fork_bomb,
        open_files,
        file_size,
        memory,
    )
}


def main() -> None:
    given = json.loads(sys.argv[1])
    found: dict[str, Any] = {}
    for name in given["tries"]:
        try:
            found[name] = TRIES[name](given)
        except Exception as error:  # noqa: BLE001  # a try that breaks is a wall that was not shown to hold
            found[name] = (False, f"it could not be tried: {error!r}")
    if given.get("reach"):
        found["reach"] = reach(given)
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
