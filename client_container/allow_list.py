"""Which programs this host lets a job start: DOCKERCOMP_ALLOW."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

#: Programs that run whatever their arguments say. Alone in an entry they would allow everything.
_INTERPRETER = re.compile(
    r"(?:python|pypy|perl|ruby|node|nodejs|deno|bun|lua|luajit|php|tclsh|wish|expect|guile|julia|rscript|r|java"
    r"|awk|gawk|mawk|nawk|sed|sh|bash|dash|ash|zsh|ksh|mksh|fish|csh|tcsh|pwsh|busybox|toybox|env|xargs|find"
    r"|nice|nohup|setsid|timeout|stdbuf|time|ionice|taskset|chroot|unshare|nsenter|sudo|doas|su|ld|ld-linux.*)"
    r"[-.0-9]*"
)
#: Names in a job's `env` that make an allowed program run something else.
_DANGEROUS_ENV = re.compile(
    r"(?:LD_|DYLD_|PYTHON|PERL|RUBY|NODE_|LUA|JAVA|_JAVA|JDK_|CLASSPATH|R_|JULIA_|GUILE_|TCL|PHP|AWK|BASH|GIT_|SSL_)"
    r".*|PATH|HOME|ENV|IFS|PS4|SHELLOPTS|SHELL|CDPATH|GCONV_PATH|LOCPATH|NLSPATH|MALLOC_.*|GLIBC_TUNABLES|TMPDIR"
    r"|EDITOR|VISUAL|PAGER|HOSTALIASES|RES_OPTIONS"
)


class BadAllowList(ValueError):
    """An allow-list that cannot be used; the message continues a sentence that begins with the setting's name."""


@dataclass(frozen=True)
class AllowList:
    """What a host allows: everything (`prefixes` is None), or command lines that begin with one of `prefixes`."""

    prefixes: tuple[tuple[str, ...], ...] | None = ()

    @property
    def everything(self) -> bool:
        """Whether any program is allowed."""
        return self.prefixes is None

    @property
    def nothing(self) -> bool:
        """Whether no program at all is allowed."""
        return self.prefixes == ()

    def permits(self, argv: Sequence[str]) -> bool:
        """Whether this command line, placeholders already replaced, begins with an allowed prefix, literally."""
        if self.prefixes is None:
            return True
        return any(tuple(argv[: len(prefix)]) == prefix for prefix in self.prefixes)

    def bad_env(self, names: Iterable[str]) -> str | None:
        """A name in a job's env that would turn an allowed program into another one; None when there is none."""
        if self.prefixes is None:
            return None
        return next((name for name in names if _DANGEROUS_ENV.fullmatch(name)), None)


def parse_allow_list(text: str) -> AllowList:
    """Read `*`, nothing, or a JSON list of command-line prefixes; raises BadAllowList."""
    if not text.strip():
        return AllowList()
    if text.strip() == "*":
        return AllowList(None)
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        raise BadAllowList(
            "must be * or a JSON list of command lines, for example "
            '[["/usr/bin/awk", "{print $1 + $2}"]]; this is neither'
        )
    return AllowList(tuple(_prefix(entry) for entry in entries))


def _prefix(entry: Any) -> tuple[str, ...]:
    shown = json.dumps(entry)
    if not isinstance(entry, list) or not entry or not all(isinstance(item, str) for item in entry):
        raise BadAllowList(f'holds {shown}, which is not a list of strings like ["/abs/program", "fixed"]')
    program, fixed = entry[0], entry[1:]
    if not program.startswith("/") or program.startswith("//") or posixpath.normpath(program) != program:
        raise BadAllowList(f"holds {shown}, whose program must be an absolute path without . or .. in it")
    name = posixpath.basename(program).lower()
    # Options and NAME=value leave an interpreter as free as it was.
    says_what = [item for item in fixed if not item.startswith("-") and not (name == "env" and "=" in item)]
    if _INTERPRETER.fullmatch(name) and not says_what:
        raise BadAllowList(
            f"holds {shown}, an interpreter that would run anything: fix its script or program text as an argument"
        )
    return tuple(entry)
