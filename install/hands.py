"""What remove.py works with: commands that are run or, in a dry run, are not, and an account of what came of it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field


@dataclass
class Hands:
    """One removal. `dry` changes nothing and says what would be done."""

    dry: bool = False
    done: dict[str, list[str]] = field(default_factory=dict)  #: things removed, by kind, in order
    left: list[str] = field(
        default_factory=list
    )  #: sentences about what stays on purpose, and how to remove it
    failed: list[str] = field(default_factory=list)  #: sentences about what should have gone and did not

    def look(self, *command: str, limit_s: float = 60) -> str | None:
        """Stdout of a command that changes nothing; None when it failed or does not exist."""
        done = _run(command, limit_s)
        return done.stdout if done is not None and done.returncode == 0 else None

    def heard(self, *command: str, limit_s: float = 60) -> str:
        """All that a command says which changes nothing, however it ends."""
        done = _run(command, limit_s)
        return "" if done is None else done.stdout + done.stderr

    def act(self, *command: str, text: str | None = None, limit_s: float = 600) -> str:
        """Run a command that changes something; an empty string when it worked, else the last line it said."""
        if self.dry:
            return ""
        done = _run(command, limit_s, text)
        if done is None:
            return f"{command[0]} did not run"
        if done.returncode == 0:
            return ""
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        return said[-1]

    def did(self, kind: str, name: str) -> None:
        """Account for one thing that is gone (or would be)."""
        self.done.setdefault(kind, []).append(name)

    def leave(self, sentence: str) -> None:
        """Account for something that stays on purpose."""
        self.left.append(sentence)

    def fail(self, sentence: str) -> None:
        """Account for something that should have gone: the receipt stays, and a second run tries again."""
        self.failed.append(sentence)

    def report(self) -> str:
        """One line a kind."""
        word = "would be removed" if self.dry else "removed"
        lines = [f"{kind}: {word}: {_listed(names)}." for kind, names in self.done.items()]
        lines += [f"Left: {sentence}" for sentence in self.left]
        lines += [f"Not done: {sentence}" for sentence in self.failed]
        return "\n".join(lines)


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:10])} and {len(names) - 10} more"


def _run(
    command: tuple[str, ...], limit_s: float, text: str | None = None
) -> subprocess.CompletedProcess[str] | None:
    given = {"stdin": subprocess.DEVNULL} if text is None else {"input": text}
    try:
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=limit_s,
            check=False,
            **given,
        )  # type: ignore[call-overload,no-any-return]
    except (OSError, subprocess.TimeoutExpired):
        return None
