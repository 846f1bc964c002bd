"""git in processes of its own: no settings but ours, nothing that it could ask or run, and bounds on all it may use."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from source_server.domain.refusal import Unavailable
from source_server.receivers.git_address import Address

MEMORY_MB = 2048  #: address space of each process
SAID = 4096  #: bytes that are read of what git says

#: The bounds hold before git begins; a shell sets them, for code between fork and exec is not safe with threads.
_BOUNDED = 'ulimit -c 0; ulimit -t "$1"; ulimit -f "$2"; ulimit -v "$3"; shift 3; exec "$@"'
#: What the operator's environment says about the way out, and about whom to trust there.
_PROXIES = ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY")
_PASSED = ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
_SSH = "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oClearAllForwardings=yes -oPermitLocalCommand=no"


_NO_MORE = ("File size limit", "died of signal", "ut of memory", "malloc")


class GitFailed(Exception):
    """A command of git ended badly; the text is the last of what it said."""


class TookTooLong(Exception):
    """git was stopped: its time was over, or what it wrote was over its limit."""


@dataclass(frozen=True, kw_only=True)
class Git:
    """Runs git in a folder of its own, until `deadline`."""

    folder: Path  #: nothing else is in it
    address: Address
    deadline: float  #: of the monotonic clock
    most_bytes: int  #: of any file that git writes
    credentials: Path | None = None  #: the operator's, in the form of git's credential store

    @property
    def repository(self) -> Path:
        """The bare repository."""
        return self.folder / "repository.git"

    def prepare(self) -> None:
        """Write the only settings that git is to read."""
        if shutil.which("git") is None:
            raise Unavailable("This server has no git: its operator has to install it.")
        (self.folder / "config").write_text(_settings(self.address, self.credentials))

    def run(self, *arguments: str) -> bytes:
        """The output of a command, which must be short; raises GitFailed or TookTooLong."""
        with self.started(*arguments) as process:
            assert process.stdout is not None
            return process.stdout.read()

    @contextlib.contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command at work; it must end well, unless the block raises. Raises GitFailed or TookTooLong."""
        with (self.folder / "said").open("w+b") as said:
            process = subprocess.Popen(
                self._command(arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                cwd=self.folder,
                env=self._environment(),
                start_new_session=True,
            )
            watch = threading.Timer(max(0.0, self.deadline - time.monotonic()), _end, [process])
            watch.start()
            try:
                yield process
                _close(process.stdin)
                status = process.wait()
            finally:
                watch.cancel()
                _end(process)
                _close(process.stdin)
                _close(process.stdout)
            if status:
                self._raise(status, said)

    def _raise(self, status: int, said: IO[bytes]) -> None:
        words = _last_words(said)
        stopped = -status in (signal.SIGKILL, signal.SIGXFSZ, signal.SIGXCPU) or self._at_limit()
        if stopped or time.monotonic() >= self.deadline or any(one in words for one in _NO_MORE):
            raise TookTooLong(words)
        raise GitFailed(words)

    def _at_limit(self) -> bool:
        """Whether a process of git's own was stopped for what it wrote: git says of that only that it failed."""
        written = (one.lstat().st_size for one in self.repository.rglob("*"))
        return any(size >= self.most_bytes // 512 * 512 for size in written)

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        seconds = max(1, round(self.deadline - time.monotonic()) + 1)
        bounds = [str(seconds), str(self.most_bytes // 512 + 1), str(MEMORY_MB * 1024)]
        return ["/bin/sh", "-c", _BOUNDED, "sh", *bounds, "git", *arguments]

    def _environment(self) -> Mapping[str, str]:
        # A proxy would look the host's name up itself, and so come to another address than the one that was checked.
        names = _PASSED if self.address.pinned is not None else (*_PASSED, *_PROXIES)
        said = {name: os.environ[name] for name in names if name in os.environ}
        return {
            **said,
            "HOME": str(self.folder),
            "LC_ALL": "C",
            "GIT_DIR": str(self.repository),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self.folder / "config"),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_ALLOW_PROTOCOL": self.address.scheme,
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
            "GIT_SSH_COMMAND": _SSH,
            "GIT_SSH_VARIANT": "ssh",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_NO_LAZY_FETCH": "1",  # a repository must not name a command that brings what it lacks
        }


def _settings(address: Address, credentials: Path | None) -> str:
    lines = [
        "[core]",
        "hooksPath = /dev/null",
        "fsmonitor = false",
        "bigFileThreshold = 8m",  # larger files pass through in a stream
        "[protocol]",
        "version = 2",  # in which a commit is fetched by its name
        "[transfer]",
        "fsckObjects = true",
        "bundleURI = false",
        "[fetch]",
        "unpackLimit = 1",  # one file, whose size is bounded
        "recurseSubmodules = no",
        "[pack]",
        "threads = 1",
        "[gc]",
        "auto = 0",
        "[maintenance]",
        "auto = false",
        "[http]",
        "followRedirects = false",
        "lowSpeedLimit = 1000",
        "lowSpeedTime = 20",
    ]
    if address.pinned is not None:
        lines.append(f"curloptResolve = {address.host}:{address.port}:{address.pinned}")
    if address.file is not None:
        lines += ["[safe]", "directory = *"]  # the operator allowed the folder, whoever owns what is in it
    if credentials is not None:
        helper = f"store --file={shlex.quote(str(credentials))}"  # git has a shell read it
        quoted = helper.replace("\\", "\\\\").replace('"', '\\"')
        lines += ["[credential]", f'helper = "{quoted}"', "useHttpPath = false"]
    return "\n".join(lines) + "\n"


def _last_words(said: IO[bytes]) -> str:
    said.seek(0, os.SEEK_END)
    said.seek(max(0, said.tell() - SAID))
    return said.read(SAID).decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it and all that it started, unless it has ended."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(OSError):
            pipe.close()
