"""Set limits in a policy.toml: set_limits.py FILE <limits.json. Makes the file, from the hardware, where there is none.

stdin: an object of limits by name, like {"containers": "2", "memory": "4g"}; what is not named stays as it is, comments
included when nothing changes. stdout: `changed` if the file changed, then a line of JSON: containers, disk (bytes).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from client_container.launcher.policy.file import checked, parse_policy, render_policy, with_value
from client_container.launcher.policy.policy import BadPolicy, Policy, default_policy


def main(path: Path, limits: Mapping[str, object]) -> int:
    try:
        text = path.read_text() if path.exists() else None
        before = parse_policy(text) if text is not None else None
        after = set_limits(before, limits)
    except BadPolicy as error:
        print(error, file=sys.stderr)
        return 2
    if before != after:
        write(path, render_policy(after))
        print("changed")
    print(json.dumps({"containers": after.containers, "disk": after.disk}))
    return 0


def set_limits(policy: Policy | None, limits: Mapping[str, object]) -> Policy:
    """The policy with these limits, or the hardware's default with them; raises BadPolicy."""
    if policy is None:
        policy = of_this_machine()
        if "containers" in limits and "cpus" not in limits:
            containers = with_value(policy, "containers", str(limits["containers"])).containers
            policy = replace(policy, cpus=float(min(containers, os.cpu_count() or 1)))
    for name, value in limits.items():
        policy = with_value(policy, name, str(value))
    return checked(policy)


def of_this_machine() -> Policy:
    """What a volunteer gets who says nothing."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return default_policy(os.cpu_count() or 1, memory, shutil.disk_usage("/var/lib").free)


def write(path: Path, text: str) -> None:
    """Replace the file in one step; everybody may read it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.chmod(0o644)
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.load(sys.stdin)))
