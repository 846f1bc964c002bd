"""Real git repositories, and a real git server over HTTP for them."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from parts import require
from web_servers import Quiet, WebServer

IDENTITY = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_AUTHOR_DATE": "2026-11-22T06:00:00Z",
    "GIT_COMMITTER_DATE": "2026-11-22T06:00:00Z",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


def git(*arguments: str, cwd: Path | None = None, text: bytes | None = None, status: int = 0) -> str:
    """What git prints; it must end with that status."""
    if shutil.which("git") is None:
        require("no git")
    env = {**{name: value for name, value in os.environ.items() if not name.startswith("GIT_")}, **IDENTITY}
    done = subprocess.run(["git", *arguments], cwd=cwd, input=text, capture_output=True, env=env)
    assert done.returncode == status, f"git {arguments}: {done.stderr.decode(errors='replace')}"
    return (done.stdout.decode() + (done.stderr.decode() if arguments[0] == "push" else "")).strip()


class Repository:
    """A work tree and the bare repository that it is pushed to."""

    def __init__(self, folder: Path, name: str = "study") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.work, self.bare = folder / f"{name}-work", folder / f"{name}.git"
        git("init", "--quiet", "--bare", "--initial-branch=main", str(self.bare))
        git("init", "--quiet", "--initial-branch=main", str(self.work))
        git("remote", "add", "origin", str(self.bare), cwd=self.work)

    @property
    def url(self) -> str:
        return f"file://{self.bare}"

    def commit(self, files: Mapping[str, str | bytes | None], *, push: bool = True) -> str:
        """Write these files (None: a link is there already), commit everything and push it to main; the commit."""
        for name, content in files.items():
            if content is None:
                continue
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        git("add", "--all", "--force", cwd=self.work)
        git("commit", "--quiet", "--allow-empty", "--message=a change", cwd=self.work)
        if push:
            self.push()
        return git("rev-parse", "HEAD", cwd=self.work)

    def push(self, *what: str) -> str:
        """Push, and what was said."""
        return git("push", "origin", *(what or ("HEAD:main",)), cwd=self.work)

    def crafted(self, entries: list[tuple[str, str, str]]) -> str:
        """A commit in the bare repository whose tree is written entry by entry: (mode, name, object)."""
        kinds = {"040000": b"tree", "160000": b"commit"}
        body = b"".join(
            mode.encode()
            + b" "
            + kinds.get(mode, b"blob")
            + b" "
            + one.encode()
            + b"\t"
            + name.encode()
            + b"\n"
            for mode, name, one in entries
        )
        tree = git("mktree", "--missing", cwd=self.bare, text=body)
        return git("commit-tree", tree, "-m", "crafted", cwd=self.bare)

    def blob(self, content: bytes) -> str:
        """An object in the bare repository."""
        return git("hash-object", "-w", "--stdin", cwd=self.bare, text=content)


class GitOverHttp:
    """git's own HTTP server side over these folders; what else is asked for it answers as `answers` says."""

    def __init__(self, root: Path) -> None:
        backend = Path(git("--exec-path")) / "git-http-backend"
        if not backend.exists():
            require("no git http-backend")
        self.asked: list[str] = []
        self.redirect_to: str | None = None
        self.password: str | None = None
        server = WebServer(_handler(self, backend, root))
        self.url, self.close = server.url, server.close


@contextmanager
def git_over_http(root: Path) -> Iterator[GitOverHttp]:
    server = GitOverHttp(root)
    try:
        yield server
    finally:
        server.close()


def _handler(server: GitOverHttp, backend: Path, root: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(Quiet):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            if server.redirect_to is not None:
                self.send_response(302)
                self.send_header("Location", server.redirect_to + self.path)
                self.end_headers()
                return
            if server.password is not None and self.headers.get("Authorization") != server.password:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            self._ask_git()

        do_POST = do_GET

        def _ask_git(self) -> None:
            path, _, query = self.path.partition("?")
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
            else:
                body = self.body()
            env = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
            }
            done = subprocess.run([backend], input=body, capture_output=True, env=env)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    return Handler


def signed(secret: str, body: bytes, *, kind: str = "push", delivery: str = "d-1") -> dict[str, str]:
    """The headers of a webhook of GitHub's form."""
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": kind,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
    }


def push_body(commit: str, *, ref: str = "refs/heads/main", **other: Any) -> bytes:
    """What GitHub says of a push, and more that nobody reads."""
    said = {
        "ref": ref,
        "before": "0" * 40,
        "after": commit,
        "repository": {"full_name": "ada/study"},
        **other,
    }
    return json.dumps(said).encode()
