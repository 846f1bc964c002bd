import pytest

from client_container.allow_list import BadAllowList, parse_allow_list


def test_a_star_allows_everything_and_nothing_allows_nothing():
    assert parse_allow_list("*").permits(["anything"])
    assert not parse_allow_list("").permits(["/bin/true"])
    assert (
        parse_allow_list("").nothing and parse_allow_list("[]").nothing and not parse_allow_list("*").nothing
    )


def test_a_command_line_must_begin_with_an_entry_item_by_item():
    allow = parse_allow_list('[["/opt/sum", "--fast"], ["/usr/bin/python3", "/opt/x.py"]]')

    assert allow.permits(["/opt/sum", "--fast"])
    assert allow.permits(["/usr/bin/python3", "/opt/x.py", "any", "more"])
    assert not allow.permits(["/opt/sum"])
    assert not allow.permits(["/opt/sum", "--faster"])
    assert not allow.permits(["sum", "--fast"])
    assert not allow.permits(["/opt/../opt/sum", "--fast"])
    assert not allow.permits([])


@pytest.mark.parametrize(
    "entry",
    [
        '["sum"]',
        '["/opt/../bin/sum"]',
        '["//bin/sum"]',
        '["/opt/sum/"]',
        '["/usr/bin/python3"]',
        '["/usr/bin/python3.11"]',
        '["/usr/bin/python3", "-u"]',
        '["/bin/sh", "-c"]',
        '["/bin/bash"]',
        '["/bin/busybox"]',
        '["/usr/bin/env"]',
        '["/usr/bin/env", "A=1"]',
        '["/usr/bin/tclsh8.6"]',
        '["/usr/bin/lua5.4"]',
        '["/usr/bin/gawk", "-f"]',
        "[]",
        '["/opt/sum", 1]',
        '"/opt/sum"',
    ],
)
def test_an_entry_that_would_allow_anything_or_is_no_absolute_program_is_refused(entry):
    with pytest.raises(BadAllowList):
        parse_allow_list(f"[{entry}]")


def test_a_job_may_not_set_what_would_turn_an_allowed_program_into_another():
    allow = parse_allow_list('[["/opt/sum"]]')

    assert allow.bad_env(["MODE", "LD_PRELOAD"]) == "LD_PRELOAD"
    assert allow.bad_env(["BASH_ENV"]) and allow.bad_env(["PYTHONPATH"]) and allow.bad_env(["PATH"])
    assert allow.bad_env(["MODE", "OMP_NUM_THREADS"]) is None
    assert parse_allow_list("*").bad_env(["LD_PRELOAD"]) is None
