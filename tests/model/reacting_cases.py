"""The settings of a task's end that are explored, and what is broken on purpose."""

from __future__ import annotations

from dataclasses import dataclass, replace

from model import reacting
from model.explorer import STUCK
from model.reacting_setting import Reacting, Wrong

LATE = Reacting(name="a task ends, a good answer comes late", late=1)
FAILING = Reacting(name="a task ends, its reactions may fail", reactions_fail=True)
CANCELLED = Reacting(name="a task ends, or is cancelled, or its reactions are", cancels=1)
LIMITED = Reacting(name="a task ends, or its limits end it", limits=1, late=1)
RERUN = Reacting(
    name="a task ends and is run again, nobody computes what is outdated",
    at_work=1,
    reruns=1,
    outdated_are_left=True,
)
FAILOVER = Reacting(name="a task ends, a late answer, a failover", late=1, failovers=1)
CANCELLED_OVER = Reacting(name="a task is cancelled, a failover", at_work=1, cancels=1, failovers=1)
LIMITED_OVER = Reacting(name="limits end a task, a failover", at_work=1, limits=1, failovers=1)

SETTINGS = (LATE, FAILING, CANCELLED, LIMITED, RERUN, FAILOVER, CANCELLED_OVER, LIMITED_OVER)

#: The same with more of everything: for scripts/model-check --deep.
DEEP = (
    replace(RERUN, name="a task ends and is run again, two housekeepers", at_work=2),
    replace(RERUN, name="a task ends and is run again, a failover", failovers=1),
    replace(RERUN, name="a task ends, is run again and cancelled", cancels=1),
    replace(CANCELLED_OVER, name="a task is cancelled, two housekeepers, a failover", at_work=2),
    replace(LIMITED_OVER, name="limits end a task, two housekeepers, a failover", at_work=2, late=1),
    replace(FAILOVER, name="a task ends, a late answer, two failovers", failovers=2, reactions_fail=True),
)


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A variant, where it shows, and as what."""

    setting: Reacting
    sentence: str

    @property
    def name(self) -> str:
        """The name of what is done otherwise."""
        return ", ".join(flag for flag, is_set in vars(self.setting.wrong).items() if is_set)


def _broken(setting: Reacting, sentence: str, **flag: bool) -> Broken:
    return Broken(setting=replace(setting, wrong=Wrong(**flag)), sentence=sentence)


BROKEN = (
    _broken(LATE, reacting.TWO_OUTCOMES, decides_blindly=True),
    _broken(RERUN, reacting.OPEN_LEFT, decides_blindly=True),
    _broken(LIMITED, reacting.OTHER_WORD, forgets_limits=True),
    _broken(LATE, reacting.LEFT_OUT, marks_later=True),
    _broken(LATE, reacting.EARLY, waits_for_nobody=True),
    _broken(LATE, reacting.TWICE, names_by_chance=True),
    _broken(LATE, reacting.NOT_RUN, task_first=True),
    _broken(replace(RERUN, at_work=2), reacting.LEFT_OUT, ends_any_round=True),
    _broken(FAILOVER, reacting.NOT_DUE, reacts_locally=True),
    _broken(CANCELLED_OVER, reacting.UNASKED, tends_locally=True),
    _broken(CANCELLED_OVER, reacting.CHUNK_LOST, sweeps_locally=True),
    _broken(RERUN, STUCK, keeps_outdated=True),
)
