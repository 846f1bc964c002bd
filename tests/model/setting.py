"""What is explored: who takes part, by which rule, how often rare things happen, and what is broken on purpose."""

from __future__ import annotations

from dataclasses import dataclass, field

from source_server.domain.validation import Validation


@dataclass(frozen=True, kw_only=True)
class Giver:
    """A client container and what its attempts may come to: right, wrong (a lie) or failed."""

    name: str
    account: str
    outcomes: tuple[str, ...] = ("right",)
    claims: int = 1  #: claims it makes at most
    trusted: bool = False  #: an adaptive task takes its word alone


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is done otherwise than the protocol says. Each of these has to be found."""

    acknowledges_at_once: bool = False  #: "stored" is said at w:1
    acknowledges_known: bool = False  #: a resend is acknowledged because its id exists
    judges_locally: bool = False  #: verdicts from what the primary says, not from what a majority has
    points_first: bool = False  #: the chunk is pointed at a result before that is stored
    refuses_stale: bool = False  #: a holder whose lease has ended is refused
    counts_revs: bool = False  #: revisions count up instead of being random
    recounts: bool = False  #: an error is not looked for among those counted
    ignores_tokens: bool = False  #: what a container says of one claim is applied to any claim of it
    settles_unconfirmed: bool = False  #: housekeeping takes up what only the primary has
    forgets_candidates: bool = False  #: housekeeping does not look again at results that wait as candidates
    forgets_validating: bool = False  #: nor at chunks that stay in validation
    blames_early: bool = False  #: an answer unlike the first one is blamed before enough agree
    takes_twice: bool = False  #: one account's answers count as many
    judges_old_runs: bool = False  #: an answer counts whatever run it was computed in


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One small configuration, explored wholly."""

    name: str
    givers: tuple[Giver, ...]
    rule: Validation = field(default_factory=Validation)
    at_work: int = 2  #: requests under way at once
    hedges: bool = False
    canaries: bool = False
    expiry: bool = True
    lost_answers: bool = True  #: the answer to a claim may be lost
    late_claims: bool = False  #: duplicates of a claim may arrive late
    failovers: int = 0  #: with none, a majority has every write at once
    purges: int = 0
    reruns: int = 0
    requeues: int = 0
    cancels: bool = False
    assigns: bool = False
    variant: Variant = Variant()
