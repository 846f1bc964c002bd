"""A task whose first attempts fail alike everywhere pauses itself: it would only burn the volunteers' time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from source_server.domain.quarantine import Fleet

FIRST = 20  #: attempts that are looked at
ALIKE = 18  #: so many of them failing with one signature: 90 %


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An attempt that ended: on whose host, and with which signature it failed (None: it came to an answer)."""

    host: str
    account: str = ""
    signature: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a task's first attempts say: `why` it has to pause, or that it need not (None)."""

    why: str | None = None


def first_attempts_say(attempts: Sequence[Ended], fleet: Fleet) -> Finding | None:
    """Judge a task by its attempts so far, in the order in which they ended; None: it is too early to say.

    `fleet`: who could compute it now. One host, or one account, that fails at everything is no reason to stop the
    others: while there are others, one of them has to have failed in the same way.
    """
    window = attempts[:FIRST]
    signatures = Counter(one.signature for one in window if one.signature is not None)
    signature, count = signatures.most_common(1)[0] if signatures else ("", 0)
    if len(window) - count > FIRST - ALIKE:
        return Finding()
    if len(window) < FIRST:
        return None
    alike = [one for one in attempts if one.signature == signature]
    failed_on, failed_of = {one.host for one in alike}, {one.account for one in alike}
    widely = len(failed_on) > 1 or not fleet.hosts - failed_on
    if widely and (len(failed_of) > 1 or not fleet.accounts - failed_of):
        alike_in = signature.rstrip(".")  # it may be a sentence of its own
        return Finding(why=f"{count} of its first {len(window)} attempts failed alike: {alike_in}.")
    # Only one has failed so, though there are others: what did they say?
    told = any(one.host not in failed_on or one.account not in failed_of for one in attempts)
    return Finding() if told else None
