"""The settings that are explored, in the small for every commit and larger by hand, and what is broken on purpose."""

from __future__ import annotations

from dataclasses import dataclass, replace

from model import properties
from model.client_steps import REFUSED, ROBBED
from model.explorer import STUCK
from model.setting import Giver, Setting, Variant
from source_server.domain.validation import Validation

A = Giver(name="a", account="A")
B = Giver(name="b", account="B")
A_TWICE = replace(A, claims=2)
SECOND_OF_A = Giver(name="d", account="A")
THIRD = Giver(name="e", account="E")
LIAR = Giver(name="c", account="C", outcomes=("wrong",))
SHAKY = ("right", "failed")
TRYING = replace(A, claims=2, outcomes=SHAKY)

TWO_AGREE = Validation(quorum=2, replicas=2, most=3)

FIRST_ANSWER = Setting(name="the first answer decides, a failover", givers=(A, B), failovers=1)
QUORUM = Setting(
    name="two must agree, a failover", givers=(A, B), rule=TWO_AGREE, failovers=1, lost_answers=False
)
WITH_LIAR = Setting(
    name="two must agree, one lies", givers=(A, B, LIAR), rule=TWO_AGREE, at_work=1, lost_answers=False
)
ONE_ACCOUNT = Setting(
    name="two must agree, two containers of one account",
    givers=(A, B, SECOND_OF_A),
    rule=TWO_AGREE,
    at_work=1,
    lost_answers=False,
)
ONE_LIAR_TWICE = Setting(
    name="two must agree, a liar has two containers",
    givers=(A, LIAR, replace(LIAR, name="d")),
    rule=TWO_AGREE,
    at_work=1,
    lost_answers=False,
)
HEDGED = Setting(
    name="two must agree, one lies, stragglers are hedged",
    givers=(A, LIAR, THIRD),
    rule=TWO_AGREE,
    at_work=1,
    hedges=True,
    lost_answers=False,
)
GIVEN_UP = Setting(
    name="two must agree and do not: set aside, requeued",
    givers=(A, LIAR, THIRD),
    rule=replace(TWO_AGREE, most=2),
    at_work=1,
    requeues=1,
    lost_answers=False,
)
TRUSTED_LIAR = Setting(
    name="two must agree, but one is trusted, and lies",
    givers=(replace(LIAR, trusted=True), A, B),
    rule=replace(TWO_AGREE, adaptive=True),
    at_work=1,
    lost_answers=False,
)
FAILING = Setting(
    name="attempts fail until the chunk is set aside, and is requeued",
    givers=(replace(A, claims=2, outcomes=SHAKY), replace(B, outcomes=("failed",))),
    at_work=1,
    requeues=1,
    lost_answers=False,
)
FAILING_OVER = Setting(
    name="attempts fail, a failover",
    givers=(replace(A, outcomes=SHAKY), replace(B, outcomes=("failed",))),
    at_work=1,
    failovers=1,
    lost_answers=False,
)
CLAIMED_TWICE = Setting(
    name="attempts fail, claims arrive twice, a failover",
    givers=(replace(A, claims=2, outcomes=("failed",)),),
    at_work=1,
    expiry=False,
    failovers=1,
    late_claims=True,
    lost_answers=False,
)
DEALT = Setting(
    name="dealt, taken over, purged, come back",
    givers=(A_TWICE, B),
    at_work=1,
    assigns=True,
    purges=1,
    expiry=False,
    late_claims=True,
)
RERUN = Setting(
    name="run again, a failover", givers=(A, B), at_work=1, reruns=1, failovers=1, lost_answers=False
)
CANCELLED = Setting(name="cancelled, a failover", givers=(A, B), at_work=1, cancels=True, failovers=1)
CANARIES = Setting(name="settled chunks are canaries", givers=(A_TWICE, B), canaries=True, at_work=1)

#: The same with more of everything: minutes, and up to the bound that scripts/model-check is given.
DEEP = (
    replace(FIRST_ANSWER, name="the first answer decides, two failovers", failovers=2),
    replace(QUORUM, name="two must agree, one lies, a failover", givers=(A, B, LIAR)),
    replace(ONE_ACCOUNT, name="two must agree, two containers of one account, a failover", failovers=1),
    replace(HEDGED, name="two must agree, one lies, stragglers are hedged, a failover", failovers=1),
    replace(
        FAILING,
        name="attempts fail, are requeued, then succeed",
        givers=(TRYING, replace(TRYING, name="b", account="B")),
    ),
    replace(FAILING_OVER, name="attempts fail, claims arrive twice, a failover", late_claims=True, at_work=2),
    replace(DEALT, name="dealt, taken over, purged, come back, a failover", purges=2, failovers=1),
    replace(RERUN, name="run again twice, a failover", givers=(A_TWICE, B), reruns=2, at_work=2),
    replace(CANCELLED, name="cancelled while two must agree, a failover", rule=TWO_AGREE, at_work=2),
)

SETTINGS = (
    FIRST_ANSWER,
    QUORUM,
    WITH_LIAR,
    ONE_ACCOUNT,
    ONE_LIAR_TWICE,
    HEDGED,
    GIVEN_UP,
    TRUSTED_LIAR,
    FAILING,
    FAILING_OVER,
    CLAIMED_TWICE,
    DEALT,
    RERUN,
    CANCELLED,
    CANARIES,
)


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A variant, where it shows, and as what."""

    setting: Setting
    sentence: str

    @property
    def name(self) -> str:
        """The name of what is done otherwise."""
        flags = vars(self.setting.variant)
        return ", ".join(flag for flag, is_set in flags.items() if is_set)


def _broken(setting: Setting, sentence: str, **flag: bool) -> Broken:
    return Broken(setting=replace(setting, variant=Variant(**flag)), sentence=sentence)


VARIANTS = (
    # The five that the protocol was first checked against.
    _broken(FIRST_ANSWER, properties.LOST, acknowledges_at_once=True),
    _broken(FIRST_ANSWER, properties.LOST, acknowledges_known=True),
    _broken(FIRST_ANSWER, properties.ELSEWHERE, judges_locally=True),
    _broken(FIRST_ANSWER, properties.NOT_STORED, points_first=True),
    _broken(FIRST_ANSWER, REFUSED, refuses_stale=True),
    # And ours.
    _broken(replace(FIRST_ANSWER, lost_answers=False), properties.CHANGED, counts_revs=True),
    _broken(FIRST_ANSWER, properties.NOT_STORED, settles_unconfirmed=True),
    _broken(CLAIMED_TWICE, properties.COUNTED_TWICE, recounts=True),
    _broken(CLAIMED_TWICE, properties.NOT_COUNTED, judges_locally=True),
    _broken(replace(DEALT, givers=(A_TWICE,)), ROBBED, ignores_tokens=True),
    _broken(WITH_LIAR, STUCK, forgets_candidates=True),
    _broken(HEDGED, STUCK, forgets_validating=True),
    _broken(WITH_LIAR, properties.BLAMED_EARLY, blames_early=True),
    _broken(ONE_LIAR_TWICE, properties.LIE, takes_twice=True),
    _broken(RERUN, properties.OUTDATED, judges_old_runs=True),
)
