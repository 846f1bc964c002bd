"""A cold run on a bare machine of the suite TRY_SUITE; run by scripts/try-install, not collected with the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import fresh_machine
from laboratory import Lab
from machines import difference
from test_lending import ROWS, THE_LINE, Work, last_recap, timed, whole_again, work

__all__ = ["work"]


@pytest.mark.timeout(1800)
def test_a_bare_machine_is_lent_and_taken_back(lab: Lab, work: Work, tmp_path: Path) -> None:
    suite = os.environ["TRY_SUITE"]
    for machine in fresh_machine("bare", lab, suite=suite):
        machine.reboot()  # what runs at the very first start only is no part of before
        before = machine.snapshot()
        task = timed(f"cold {suite}, no engine", machine, f"{THE_LINE} --containers 2 --disk 1g", work)
        work.wait(task, done=ROWS)
        machine.sh(THE_LINE)
        assert "changed=0 " in last_recap(machine)
        machine.reboot()
        whole_again(machine)

        said = machine.sh("dockercomp-volunteer uninstall --purge --yes")

        left = difference(before, machine.snapshot())
        print(said)
        print("left:", left)
        assert left == {}
