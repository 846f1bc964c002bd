"""policy.toml: one table of its keys, from which it is read, written and changed. Pure."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from client_container.launcher.policy.policy import LEAST_MEMORY_A_JOB, MB, BadPolicy, Policy
from client_container.launcher.policy.text import (
    DAYS,
    GROUPS,
    Hours,
    grouped,
    read_hours_line,
    read_range,
    read_size,
    show_hours,
    show_range,
    show_size,
)
from client_container.machine import FACTS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_LABELS, LONGEST_LABEL = 32, 100
MOST_CONTAINERS = 900  #: slots that an instance has uids for
_REGISTRY = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[1-9][0-9]{0,4})?", re.ASCII)
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}", re.ASCII)
_PROJECT = re.compile(r"[^\s\"\\]{1,200}")

Reader = Callable[[Any], Any]  #: raises ValueError whose message ends "KEY must be ..."


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of the file."""

    section: str
    name: str
    field: str  #: of Policy
    read: Reader  #: from a TOML value
    show: Callable[[Any], str]  #: as a TOML value
    comment: str  #: one line for a person
    example: str = ""  #: shown commented out where the key is absent, which then means None

    @property
    def path(self) -> str:
        """As it is called in messages and on the command line."""
        return f"{self.section}.{self.name}"


def _number(low: float, high: float, *, whole: bool = False) -> Reader:
    kind = "whole number" if whole else "number"

    def read(value: Any) -> Any:
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not fits or not low <= value <= high:
            raise ValueError(f"a {kind} from {low:g} to {high:g}")
        return value if whole else float(value)

    return read


def _size(least: int) -> Reader:
    def read(value: Any) -> int:
        size = read_size(value)
        if size < least:
            raise ValueError(f'a size of at least "{show_size(least)}"')
        return size

    return read


def _yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _texts(pattern: re.Pattern[str], what: str) -> Reader:
    def read(value: Any) -> tuple[str, ...]:
        good = isinstance(value, list) and all(
            isinstance(one, str) and pattern.fullmatch(one) for one in value
        )
        if not good or len(value) > 1000:
            raise ValueError(f"a list of {what}")
        return tuple(dict.fromkeys(value))

    return read


def _shares(value: Any) -> dict[str, float]:
    weight = _number(0.001, 1000)
    try:
        return {name: weight(one) for name, one in value.items() if _PROJECT.fullmatch(name) or weight(None)}
    except (AttributeError, ValueError):
        raise ValueError('weights by project from 0.001 to 1000, like "sums" = 2') from None


def _labels(value: Any) -> dict[str, str | float]:
    good = 'strings and numbers by name, like { "room" = "attic" }'
    if not isinstance(value, dict) or len(value) > MOST_LABELS:
        raise ValueError(good)
    for name, one in value.items():
        text = isinstance(one, str) and 0 < len(one) <= LONGEST_LABEL and one.isprintable()
        number = isinstance(one, int | float) and not isinstance(one, bool) and abs(one) < 1e15
        if not _LABEL.fullmatch(name) or not (text or number):
            raise ValueError(good)
        if name in FACTS or name == "slot":
            raise ValueError(f"other names than {name}, which the machine says by itself")
    return dict(value)


def _hours(value: Any) -> Hours:
    hours: Hours = {}
    good = 'times by day (mon ... sun, weekdays, weekend, daily), like mon = ["18:00-24:00"]'
    if not isinstance(value, dict):
        raise ValueError(good)
    for name, ranges in value.items():
        days = GROUPS.get(name, (name,) if name in DAYS else ())
        if not days or not isinstance(ranges, list):
            raise ValueError(good)
        if set(days) & hours.keys():
            raise ValueError(f"such that each day is named once; {name} comes again")
        hours |= dict.fromkeys(days, tuple(map(read_range, ranges)))
    return hours


def _show_number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"


def _quoted_size(size: int) -> str:
    return f'"{show_size(size)}"'


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _inline(pairs: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"{name} = {value}" for name, value in pairs.items()) + " }" if pairs else "{}"


def _show_hours(hours: Hours) -> str:
    return _inline(
        {name: json.dumps(list(map(show_range, ranges))) for name, ranges in grouped(hours).items()}
    )


def _show_shares(shares: Mapping[str, float]) -> str:
    return _inline({json.dumps(name): _show_number(weight) for name, weight in shares.items()})


def _show_labels(labels: Mapping[str, str | float]) -> str:
    return _inline(
        {
            json.dumps(name): json.dumps(value) if isinstance(value, str) else repr(value)
            for name, value in labels.items()
        }
    )


def _show_texts(texts: tuple[str, ...]) -> str:
    return json.dumps(list(texts), ensure_ascii=False)


def _key(
    section: str, name: str, field: str, read: Reader, show: Callable[[Any], str], comment: str, **more: str
) -> Key:
    return Key(section=section, name=name, field=field, read=read, show=show, comment=comment, **more)


# fmt: off
KEYS = (
    _key("limits", "containers", "containers", _number(1, MOST_CONTAINERS, whole=True), str,
         "Client containers; each runs at most one job at a time."),
    _key("limits", "cpus", "cpus", _number(0.05, 4096), _show_number,
         "Processors for all jobs together; 1.5 is one and a half."),
    _key("limits", "memory", "memory", _size(LEAST_MEMORY_A_JOB), _quoted_size,
         "Memory for all jobs together."),
    _key("limits", "disk", "disk", _size(64 * MB), _quoted_size,
         "Disk for data, answers and checkpoints; its size is fixed when the launcher is installed."),
    _key("limits", "transfer_a_day", "transfer_a_day", _size(MB), _quoted_size,
         "Most bytes a day, in and out; without it: no limit.", example='"5g"'),
    _key("when", "hours", "hours", _hours, _show_hours,
         "Hours by day (mon ... sun, weekdays, weekend, daily); {} is always; a day that is not named: never."),
    _key("when", "idle_only", "idle_only", _yes_or_no, _flag,
         "Only while nobody uses the machine."),
    _key("when", "on_battery", "on_battery", _yes_or_no, _flag,
         "Also while the machine runs on battery."),
    _key("when", "metered", "metered", _yes_or_no, _flag,
         "Also on a network that is paid for by volume."),
    _key("when", "hottest", "hottest", _number(30, 120), _show_number,
         "Degrees Celsius above which jobs rest; without it: no limit.", example="85"),
    _key("projects", "allowed", "projects", _texts(_PROJECT, 'projects, like ["sums"]'), _show_texts,
         "Projects that may run here; without it: all of the server's.", example='["sums"]'),
    _key("projects", "shares", "shares", _shares, _show_shares,
         'Weight of a project against others, 1 unless named, like { "sums" = 2 }.'),
    _key("machine", "labels", "labels", _labels, _show_labels,
         'Own labels that jobs may ask for, like { "room" = "attic" }; what the machine is it says by itself.'),
    _key("machine", "gpu", "gpu", _yes_or_no, _flag,
         "Whether jobs that ask for graphics processors get this machine's (needs NVIDIA's container toolkit)."),
    _key("images", "largest", "image_size", _size(MB), _quoted_size,
         "Largest image of a job, unpacked."),
    _key("images", "total", "images", _size(MB), _quoted_size,
         "All job images together; those used longest ago are removed."),
    _key("images", "registries", "registries", _texts(_REGISTRY, 'hosts, like ["registry.example:5000"]'), _show_texts,
         "Registries from which images may be pulled, by digest only; none: only what the server sends."),
    _key("images", "private_registries", "private_registries", _yes_or_no, _flag,
         "Whether such a registry may have a private address (a laboratory's own)."),
)
# fmt: on


def parse_policy(text: str) -> Policy:
    """The policy in the text of policy.toml; keys that are absent have the defaults of Policy. Raises BadPolicy."""
    try:
        sections = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadPolicy(f"The policy is not valid TOML: {error}.") from error
    values: dict[str, Any] = {}
    for name, value in _flat(sections):
        key = find_key(name, exact=True)
        try:
            values[key.field] = key.read(value)
        except ValueError as error:
            raise BadPolicy(f"{key.path} must be {error}, not {_clipped(value)}.") from None
    return checked(Policy(**values))


def checked(policy: Policy) -> Policy:
    """The policy itself, if its values go together; raises BadPolicy."""
    if policy.memory_a_job < LEAST_MEMORY_A_JOB:
        least = show_size(policy.containers * LEAST_MEMORY_A_JOB)
        raise BadPolicy(
            f'limits.memory must be at least "{least}" for {policy.containers} containers, '
            f'not "{show_size(policy.memory)}".'
        )
    if policy.image_size > policy.images:
        raise BadPolicy(
            f'images.largest must be at most images.total ("{show_size(policy.images)}"), '
            f'not "{show_size(policy.image_size)}".'
        )
    return policy


def render_policy(policy: Policy) -> str:
    """The text of policy.toml for this policy, a comment for each key; parse_policy takes it back."""
    lines = [
        "# What this machine lends. The launcher reads this file again when it changes; to see whether it did:",
        "# dockercomp-volunteer limits show. Limits are totals for the machine.",
    ]
    section = ""
    for key in KEYS:
        if key.section != section:
            section = key.section
            lines += ["", f"[{section}]"]
        value = getattr(policy, key.field)
        lines += [f"# {key.comment}", f"{'# ' if value is None else ''}{key.name} = {shown(key, policy)}"]
    return "\n".join(lines) + "\n"


def shown(key: Key, policy: Policy) -> str:
    """The key's value as TOML; its example when it has none."""
    value = getattr(policy, key.field)
    return key.example if value is None else key.show(value)


def find_key(name: str, *, exact: bool = False) -> Key:
    """The key `section.name`; unless it has to be exact, its name or its field's will do. Raises BadPolicy."""
    for key in KEYS:
        if name == key.path or (name in (key.name, key.field) and not exact):
            return key
    raise BadPolicy(f"There is no key {name} in the policy; there are {', '.join(key.path for key in KEYS)}.")


def with_value(policy: Policy, name: str, text: str) -> Policy:
    """The policy with one key changed, its value as typed on a command line; raises BadPolicy.

    `none` removes a limit; lists are separated by commas; hours are one line (see policy_text).
    """
    key = find_key(name)
    try:
        value: Any = None if text == "none" and key.example else key.read(_typed(key, text))
    except ValueError as error:
        raise BadPolicy(f"{key.path} must be {error}, not {_clipped(text)}.") from None
    changed: dict[str, Any] = {key.field: value}
    return checked(replace(policy, **changed))


def _typed(key: Key, text: str) -> Any:
    """What TOML would have held for a value typed on a command line."""
    if key.field == "hours":
        return {day: list(map(show_range, ranges)) for day, ranges in read_hours_line(text).items()}
    if key.field in ("projects", "registries"):
        return [one.strip() for one in text.split(",") if one.strip()]
    if key.field == "shares":
        pairs = [one.partition("=") for one in text.split(",") if one.strip()]
        return {name.strip(): _plain(weight.strip()) for name, _, weight in pairs}
    return _plain(text.strip())


def _plain(text: str) -> Any:
    if text.lower() in ("true", "yes", "on", "false", "no", "off"):
        return text.lower() in ("true", "yes", "on")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def told(policy: Policy) -> dict[str, Any]:
    """Every key with its value, for programs: sizes in bytes, hours as one line."""
    values = {key.path: getattr(policy, key.field) for key in KEYS}
    values["when.hours"] = show_hours(policy.hours)
    return {path: list(value) if isinstance(value, tuple) else value for path, value in values.items()}


def _flat(sections: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """`section.key` and value of everything in the file."""
    for section, keys in sections.items():
        if not isinstance(keys, dict) or section not in {key.section for key in KEYS}:
            names = ", ".join(dict.fromkeys(f"[{key.section}]" for key in KEYS))
            raise BadPolicy(f"There is no {section} in the policy; its sections are {names}.")
        for name, value in keys.items():
            yield f"{section}.{name}", value


def _clipped(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
