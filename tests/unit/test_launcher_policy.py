"""policy.toml: what it may say, what is said about the rest, and that it can be written and read back."""

from __future__ import annotations

from dataclasses import replace
from datetime import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_container.launcher.policy.file import (
    KEYS,
    find_key,
    parse_policy,
    render_policy,
    told,
    with_value,
)
from client_container.launcher.policy.policy import BadPolicy, Policy, default_policy
from client_container.launcher.policy.text import (
    DAYS,
    read_duration,
    read_hours_line,
    read_size,
    show_duration,
    show_hours,
    show_size,
)

GB = 2**30
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "policy.md"


def test_an_empty_file_is_the_default() -> None:
    assert parse_policy("") == Policy()


def test_every_key_can_be_said() -> None:
    policy = parse_policy("""
        [limits]
        containers = 3
        cpus = 2.5
        memory = "4g"
        disk = "20g"
        transfer_a_day = "500m"
        [when]
        hours = { weekdays = ["18:00-24:00", "00:00-06:30"], sat = ["22:00-06:00"] }
        idle_only = true
        on_battery = true
        metered = true
        hottest = 80
        [projects]
        allowed = ["sums", "digits"]
        shares = { "sums" = 2, digits = 0.5 }
        [machine]
        gpu = true
        [images]
        largest = "2g"
        total = "8g"
        registries = ["registry.example:5000"]
        private_registries = true
    """)

    evening = ((time(18), time(0)), (time(0), time(6, 30)))
    assert policy == Policy(
        containers=3,
        cpus=2.5,
        memory=4 * GB,
        disk=20 * GB,
        transfer_a_day=500 * 2**20,
        hours={**dict.fromkeys(DAYS[:5], evening), "sat": ((time(22), time(6)),)},
        idle_only=True,
        on_battery=True,
        metered=True,
        hottest=80.0,
        projects=("sums", "digits"),
        shares={"sums": 2.0, "digits": 0.5},
        gpu=True,
        image_size=2 * GB,
        images=8 * GB,
        registries=("registry.example:5000",),
        private_registries=True,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[limits]\ncontainers = 0", "limits.containers must be a whole number from 1 to 900, not 0."),
        ("[limits]\ncontainers = true", "limits.containers must be a whole number from 1 to 900, not true."),
        ("[limits]\ncontainers = 2.0", "limits.containers must be a whole number from 1 to 900, not 2.0."),
        ("[limits]\ncpus = nan", "limits.cpus must be a number from 0.05 to 4096, not NaN."),
        ("[limits]\nmemory = 4096", 'limits.memory must be a size like "512m" or "2g", not 4096.'),
        ("[limits]\nmemory = '1m'", 'limits.memory must be a size of at least "64m", not "1m".'),
        ("[limits]\nmemmory = '1g'", "There is no key limits.memmory in the policy; there are limits.containers,"),
        ("[limit]\nmemory = '1g'", "There is no limit in the policy; its sections are [limits], [when],"),
        ("memory = '1g'", "There is no memory in the policy; its sections are [limits], [when],"),
        ("[when]\nidle_only = 1", "when.idle_only must be true or false, not 1."),
        ("[when]\nhours = { mo = [] }", "when.hours must be times by day (mon ... sun, weekdays, weekend, daily),"),
        ("[when]\nhours = { mon = ['25:00-26:00'] }", 'when.hours must be times like "18:00-24:00", not {"mon"'),
        ("[when]\nhours = { mon = ['24:00-06:00'] }", 'when.hours must be times like "18:00-24:00", the first'),
        (
            "[when]\nhours = { daily = ['18:00-24:00'], sun = ['01:00-02:00'] }",
            "when.hours must be such that each day is named once; sun comes again",
        ),
        ("[when]\nhottest = 1000", "when.hottest must be a number from 30 to 120, not 1000."),
        ("[projects]\nallowed = 'sums'", 'projects.allowed must be a list of projects, like ["sums"], not "sums".'),
        ("[projects]\nshares = { sums = -1 }", "projects.shares must be weights by project from 0.001 to 1000,"),
        ("[machine]\ngpu = 1", "machine.gpu must be true or false, not 1."),
        ("[images]\nregistries = ['http://x/y']", "images.registries must be a list of hosts, like"),
        ("[images]\ntotal = '1g'", 'images.largest must be at most images.total ("1g"), not "5g".'),
        ("[limits]\ncontainers = 100", 'limits.memory must be at least "6400m" for 100 containers, not "1g".'),
        ("[limits", "The policy is not valid TOML: "),
        ("[limits]\ncpus = 1\ncpus = 2", "The policy is not valid TOML: "),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence_that_names_the_key(text: str, said: str) -> None:
    with pytest.raises(BadPolicy) as complaint:
        parse_policy(text)

    assert str(complaint.value).startswith(said)


times = st.times().map(lambda t: t.replace(second=0, microsecond=0, tzinfo=None))
ranges = st.lists(st.tuples(times, times), max_size=3).map(tuple)
names = st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True)
sizes = st.integers(6 * 2**30, 2**50)
policies = st.builds(
    Policy,
    containers=st.integers(1, 90),
    cpus=st.integers(1, 400).map(lambda n: n / 20),
    memory=sizes,
    disk=sizes,
    images=sizes,
    transfer_a_day=st.none() | sizes,
    hours=st.dictionaries(st.sampled_from(DAYS), ranges),
    idle_only=st.booleans(),
    on_battery=st.booleans(),
    metered=st.booleans(),
    hottest=st.none() | st.integers(30, 120).map(float),
    projects=st.none() | st.lists(names, unique=True).map(tuple),
    shares=st.dictionaries(names, st.sampled_from([0.5, 1.0, 2.0, 10.0])),
    registries=st.lists(st.sampled_from(["a.example", "b.example:5000"]), unique=True).map(tuple),
    private_registries=st.booleans(),
)


@given(policies)
def test_a_policy_written_and_read_back_is_the_same(policy: Policy) -> None:
    assert parse_policy(render_policy(policy)) == policy


def test_a_written_policy_explains_every_key_to_a_person() -> None:
    text = render_policy(Policy())

    for key in KEYS:
        assert f"# {key.comment}\n" in text
    assert '# transfer_a_day = "5g"\n' in text
    assert 'memory = "1g"\n' in text
    assert "hours = {}\n" in text


def test_days_with_the_same_hours_are_written_together() -> None:
    policy = parse_policy("[when]\nhours = { weekdays = ['18:00-24:00'], sat = ['00:00-24:00'] }")

    assert 'hours = { weekdays = ["18:00-24:00"], sat = ["00:00-24:00"] }' in render_policy(policy)


def test_the_policy_page_describes_exactly_the_keys_of_the_code() -> None:
    rows = [
        line.split("|")[1].strip() for line in REFERENCE.read_text().splitlines() if line.startswith("| `")
    ]

    assert [row.strip("`") for row in rows] == [key.path for key in KEYS]


# --- one key, from a command line


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("containers", "3", "containers", 3),
        ("limits.cpus", "1.5", "cpus", 1.5),
        ("memory", "2g", "memory", 2 * GB),
        ("idle_only", "yes", "idle_only", True),
        ("hottest", "80", "hottest", 80.0),
        ("hottest", "none", "hottest", None),
        ("transfer_a_day", "5g", "transfer_a_day", 5 * GB),
        ("allowed", "sums, digits", "projects", ("sums", "digits")),
        ("allowed", "none", "projects", None),
        ("shares", "sums=2", "shares", {"sums": 2.0}),
        ("hours", "always", "hours", {}),
        ("hours", "mon,tue 18:00-24:00", "hours", dict.fromkeys(("mon", "tue"), ((time(18), time(0)),))),
    ],
)
def test_one_key_is_set_as_typed(name: str, text: str, field: str, value: object) -> None:
    assert with_value(Policy(projects=("old",), hottest=70.0), name, text) == replace(
        Policy(projects=("old",), hottest=70.0),
        **{field: value},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("containers", "many", 'limits.containers must be a whole number from 1 to 900, not "many".'),
        ("memory", "none", 'limits.memory must be a size like "512m" or "2g", not "none".'),
        ("hours", "monday", 'when.hours must be hours like "mon-fri 18:00-24:00; sat,sun 00:00-24:00", or'),
        ("speed", "1", "There is no key speed in the policy; there are limits.containers"),
    ],
)
def test_a_bad_value_on_the_command_line_is_one_sentence(name: str, text: str, said: str) -> None:
    with pytest.raises(BadPolicy) as complaint:
        with_value(Policy(), name, text)

    assert str(complaint.value).startswith(said)


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("18:00-08:00", "daily = ['18:00-08:00']"),
        ("mon-fri 18:00-24:00; sat,sun always", "weekdays = ['18:00-24:00'], weekend = ['00:00-24:00']"),
        (
            "sat-mon 01:00-02:00 03:00-04:00",
            "weekend = ['01:00-02:00', '03:00-04:00'], mon = ['01:00-02:00', '03:00-04:00']",
        ),
        ("never", "daily = []"),
        ("always", ""),
    ],
)
def test_hours_on_one_line_are_those_of_the_file(line: str, same: str) -> None:
    assert read_hours_line(line) == parse_policy(f"[when]\nhours = {{ {same} }}").hours


@given(st.dictionaries(st.sampled_from(DAYS), ranges.filter(bool)))
def test_hours_shown_on_one_line_can_be_typed_again(hours: dict[str, tuple[tuple[time, time], ...]]) -> None:
    assert read_hours_line(show_hours(hours)) == hours


@pytest.mark.parametrize(
    "line", ["", "mon", "mon 18-24", "mon 18:00-24:00; mon 01:00-02:00", "xyz 01:00-02:00", ";"]
)
def test_hours_that_cannot_be_read_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="hours like"):
        read_hours_line(line)


# --- sizes and durations


@given(st.integers(1, 2**62 - 1))
def test_a_size_shown_is_the_size_read(size: int) -> None:
    if len(str(size)) <= 16:
        assert read_size(show_size(size)) == size


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [("30s", 30, "30 s"), ("90m", 5400, "1 h 30 min"), ("2h", 7200, "2 h"), ("3d", 259200, "3 days")],
)
def test_durations_are_read_and_shown(text: str, seconds: float, shown: str) -> None:
    assert (read_duration(text), show_duration(seconds)) == (seconds, shown)


@pytest.mark.parametrize("text", ["", "2", "h", "0m", "-1h", "1 h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a time like 30m or 2h"):
        read_duration(text)


# --- defaults, totals


@pytest.mark.parametrize(
    ("processors", "memory", "containers", "total"),
    [
        (8, 16 * GB, 7, 8 * GB),
        (1, 16 * GB, 1, 8 * GB),
        (2, 2 * GB, 1, GB),
        (16, 4 * GB, 4, 2 * GB),
        (4, GB // 2, 1, GB // 4),
    ],
)
def test_the_default_leaves_a_processor_and_half_of_the_memory(
    processors: int, memory: int, containers: int, total: int
) -> None:
    policy = default_policy(processors, memory, 100 * GB)

    assert (policy.containers, policy.cpus, policy.memory) == (containers, containers, total)


@given(st.integers(1, 512), st.integers(2**26, 2**45), st.integers(0, 2**50))
def test_every_default_is_a_policy_that_can_be_written(processors: int, memory: int, free: int) -> None:
    policy = default_policy(processors, memory, free)

    assert parse_policy(render_policy(policy)) == policy
    assert policy.memory <= max(memory, 2**26) and policy.disk + policy.images <= max(free, 2**27)


def test_an_instance_gets_no_more_than_the_host_allows() -> None:
    host, own = Policy(containers=2, cpus=2.0, memory=GB), Policy(containers=8, cpus=1.0, memory=8 * GB)

    assert own.within(host) == replace(own, containers=2, memory=GB)


def test_what_programs_are_told_has_every_key() -> None:
    facts = told(Policy(projects=("sums",)))

    assert list(facts) == [key.path for key in KEYS]
    assert facts["projects.allowed"] == ["sums"] and facts["when.hours"] == "always"


def test_a_key_can_be_named_without_its_section() -> None:
    assert find_key("containers") == find_key("limits.containers")
