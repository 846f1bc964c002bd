"""A task whose first attempts fail alike everywhere pauses itself: it would only burn the volunteers' time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

FIRST = 20  #: attempts that are looked at
ALIKE = 18  #: so many of them failing with one signature: 90 %


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An attempt that ended: on which host, and with which signature it failed (None: it came to an answer)."""

    host: str
    signature: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a task's first attempts say: `why` it has to pause, or that it need not (None)."""

    why: str | None = None


def first_attempts_say(attempts: Sequence[Ended], hosts: Collection[str]) -> Finding | None:
    """Judge a task by its attempts so far, in the order in which they ended; None: it is too early to say.

    `hosts`: those that could compute it now. One host that fails at everything is no reason to stop the others: while
    there are others, one of them has to have failed in the same way.
    """
    window = attempts[:FIRST]
    signatures = Counter(one.signature for one in window if one.signature is not None)
    signature, count = signatures.most_common(1)[0] if signatures else ("", 0)
    if len(window) - count > FIRST - ALIKE:
        return Finding()
    if len(window) < FIRST:
        return None
    failed_on = {one.host for one in attempts if one.signature == signature}
    if len(failed_on) > 1 or not set(hosts) - failed_on:
        return Finding(why=f"{count} of its first {len(window)} attempts failed alike: {signature}.")
    # Only one host has failed so, though there are others: what did they say?
    return Finding() if any(one.host not in failed_on for one in attempts) else None
