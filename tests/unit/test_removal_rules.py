"""What a removal decides, without a machine to remove from."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

INSTALL = Path(__file__).parents[2] / "install"


@pytest.fixture(autouse=True, scope="module")
def programs() -> Iterator[None]:
    """The installer's programs find each other in their own folder."""
    sys.path.insert(0, str(INSTALL))
    yield
    sys.path.remove(str(INSTALL))


def needing(**takes: str) -> Callable[[list[str]], set[str]]:
    """What goes when some packages go, themselves included."""

    def taken_with(names: list[str]) -> set[str]:
        return {*names, *(also for name in names for also in takes.get(name, "").split())}

    return taken_with


def test_all_packages_go_at_once_when_nobody_else_needs_them() -> None:
    from remove_packages import removable

    assert removable(["a", "b"], needing(a="b")) == ["a", "b"]


def test_a_package_that_others_need_stays_and_the_rest_goes() -> None:
    from remove_packages import removable

    assert removable(["a", "b", "c"], needing(a="theirs", b="c")) == ["b", "c"]


def test_a_package_manager_that_says_nothing_lets_nothing_go() -> None:
    from remove_packages import removable

    assert removable(["a"], lambda _names: {"what apt-get does not say"}) == []


def test_what_a_simulated_purge_takes_is_read() -> None:
    from remove_packages import taken_by_apt

    said = "Reading package lists...\nPurg docker.io [20.10]\nPurg runc:amd64 [1.1] []\nRemv tini [0.19]\n"

    assert taken_by_apt(said) == {"docker.io", "runc", "tini"}


def test_what_rpm_would_break_is_read() -> None:
    from remove_packages import needing_by_rpm

    said = "error: Failed dependencies:\n\tiptables-nft is needed by (installed) docker-ce-3:27.0-1.fc40.x86_64\n"

    assert needing_by_rpm(said) == {"docker-ce"}


def test_names_that_no_step_of_ours_makes_are_foreign() -> None:
    from remove_files import foreign_names

    there = ["launcher", "payload.old", "slots.img.partial", "notes.txt", "launcher2"]

    assert foreign_names(there, ["launcher", "payload", "slots.img"]) == ["launcher2", "notes.txt"]


def test_a_folder_goes_with_what_is_ours_and_no_link_is_followed(tmp_path: Path) -> None:
    from hands import Hands
    from remove_files import remove_folder

    mine, ours = tmp_path / "mine", tmp_path / "ours"
    mine.mkdir()
    (mine / "precious").write_text("x")
    (ours / "launcher").mkdir(parents=True)
    (ours / "launcher" / "link").symlink_to(mine)
    (ours / "payload").symlink_to(mine)
    hands = Hands()

    remove_folder(hands, str(ours), ["launcher", "payload"])

    assert not ours.exists()
    assert (mine / "precious").read_text() == "x"
    assert hands.done == {"Folders": [str(ours)]}


def test_a_folder_that_is_a_link_by_now_is_left_alone(tmp_path: Path) -> None:
    from hands import Hands
    from remove_files import remove_folder

    (tmp_path / "mine" / "launcher").mkdir(parents=True)
    (tmp_path / "ours").symlink_to(tmp_path / "mine")

    remove_folder(Hands(), str(tmp_path / "ours"), ["launcher"])

    assert (tmp_path / "mine" / "launcher").is_dir()


def test_a_folder_with_something_foreign_stays_and_says_so(tmp_path: Path) -> None:
    from hands import Hands
    from remove_files import remove_folder

    (tmp_path / "launcher").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    hands = Hands()

    remove_folder(hands, str(tmp_path), ["launcher"])

    assert [one.name for one in tmp_path.iterdir()] == ["notes.txt"]
    assert hands.left == [f"{tmp_path} holds what is not ours: notes.txt."]


def test_a_dry_run_touches_nothing(tmp_path: Path) -> None:
    from hands import Hands
    from remove_files import remove_files, remove_folder, remove_subids

    (tmp_path / "launcher").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "subuid").write_text("dockercomp:730000:2000\n")
    hands = Hands(dry=True)

    remove_files(hands, [str(tmp_path / "file")])
    remove_subids(hands, ["dockercomp:730000:2000"], [str(tmp_path / "subuid")])
    remove_folder(hands, str(tmp_path), ["launcher", "file", "subuid"])

    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "launcher", "subuid"]
    assert "would be removed" in hands.report()


def test_only_our_own_lines_of_reserved_ids_go(tmp_path: Path) -> None:
    from hands import Hands
    from remove_files import remove_subids

    file = tmp_path / "subuid"
    file.write_text("eve:100000:65536\ndockercomp:730000:2000\ndockercomp:900000:5\n")
    file.chmod(0o640)

    remove_subids(Hands(), ["dockercomp:730000:2000"], [str(file)])

    assert file.read_text() == "eve:100000:65536\ndockercomp:900000:5\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["subuid"]


def test_a_file_of_reserved_ids_that_we_made_stays_when_others_have_lines_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import remove_files
    from hands import Hands

    theirs, nobodys = tmp_path / "subuid", tmp_path / "subgid"
    theirs.write_text("eve:100000:65536\n")
    nobodys.write_text("")
    monkeypatch.setattr(remove_files, "SUBID_FILES", (str(theirs), str(nobodys)))

    remove_files.remove_files(Hands(), [str(theirs), str(nobodys)])

    assert [one.name for one in tmp_path.iterdir()] == ["subuid"]


def test_a_link_that_leads_elsewhere_by_now_stays(tmp_path: Path) -> None:
    from hands import Hands
    from remove_files import remove_symlinks

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.symlink_to("/opt/dockercomp/bin/x")
    theirs.symlink_to("/usr/bin/true")

    remove_symlinks(Hands(), [str(ours), str(theirs)], "/opt/dockercomp")

    assert not os.path.lexists(ours)
    assert theirs.is_symlink()


def test_mounts_at_and_below_a_folder_are_found_but_not_its_namesakes() -> None:
    from remove_files import mounted_below

    lines = [
        f"{number} 1 0:1 / {place} rw - ext4 x rw"
        for number, place in enumerate(["/", "/srv/slots", "/srv/slots2", "/srv/slots/a\\040b"])
    ]

    assert mounted_below("\n".join(lines), ["/srv/slots"]) == ["/srv/slots", "/srv/slots/a b"]


SAVED = """
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:DOCKERCOMP-default-F - [0:0]
-A INPUT -p tcp --dport 22 -j ACCEPT
-A FORWARD -i dc-default -j DOCKERCOMP-default-F
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -s 203.0.113.1/32 -j DROP
-A DOCKER-USER -i dc-default -j DOCKERCOMP-default-F
-A DOCKER-USER -j RETURN
-A DOCKERCOMP-default-F -j DROP
COMMIT
"""


def test_only_the_walls_go_from_the_packet_filter() -> None:
    from remove_rules import OUR_CHAIN, clearing, parse

    script = clearing(parse(SAVED), lambda chain: OUR_CHAIN.fullmatch(chain) is not None)

    assert script.splitlines() == [
        "*filter",
        "-D FORWARD -i dc-default -j DOCKERCOMP-default-F",
        "-D DOCKER-USER -i dc-default -j DOCKERCOMP-default-F",
        "-F DOCKERCOMP-default-F",
        "-X DOCKERCOMP-default-F",
        "COMMIT",
    ]


def test_dockers_rules_and_policy_go_and_a_volunteers_own_rules_stay() -> None:
    from remove_rules import docker_clearing, parse

    script = docker_clearing(parse(SAVED), {})

    assert ":FORWARD ACCEPT [0:0]" in script
    assert "-D FORWARD -j DOCKER-USER" in script
    assert "-D FORWARD -i docker0 ! -o docker0 -j ACCEPT" in script
    assert "-X DOCKER\n" in script
    assert "203.0.113.1" not in script
    assert "--dport 22" not in script


def test_what_was_there_before_docker_stays_when_it_goes() -> None:
    from remove_rules import docker_clearing, parse

    before = parse(
        "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n"
        "-A FORWARD -j DOCKER-USER\n-A FORWARD -o docker0 -j DOCKER\nCOMMIT\n"
    )

    script = docker_clearing(parse(SAVED), before)

    assert ":FORWARD" not in script
    assert "-X DOCKER-USER" not in script
    assert "-D FORWARD -j DOCKER-USER" not in script
    assert "-D FORWARD -o docker0 -j DOCKER\n" not in script


def test_policies_stay_where_nobody_knows_what_they_were() -> None:
    from remove_rules import docker_clearing, parse

    assert ":FORWARD" not in docker_clearing(parse(SAVED), None)


def table(inside: str) -> str:
    return "table ip filter {\n\tchain FORWARD {\n\t\t" + inside + "\n\t}\n}\n"


@pytest.mark.parametrize(
    ("listing", "holds"),
    [
        (table("type filter hook forward priority filter; policy accept;"), False),
        (table("type filter hook forward priority filter; policy drop;"), True),
        (table("tcp dport 22 accept"), True),
        ("table ip filter {\n}\n", False),
    ],
)
def test_a_table_of_the_packet_filter_is_empty_without_rules_and_closed_policies(
    listing: str, holds: bool
) -> None:
    from remove_rules import table_holds

    assert table_holds(listing) is holds


def test_a_receipt_of_a_half_finished_installation_is_complete_when_read(tmp_path: Path) -> None:
    from remove import LISTS, read_receipt

    path = tmp_path / "receipt.json"
    path.write_text(json.dumps({"version": 1, "prefix": "/opt/dockercomp", "folders": ["/opt/dockercomp"]}))

    receipt = read_receipt(path)

    assert receipt is not None
    assert all(isinstance(receipt[name], list) for name in LISTS)
    assert receipt["docker"] == {"installed_by_us": False, "packages": [], "repository_files": []}
    assert read_receipt(tmp_path / "none") is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}'])
def test_a_receipt_that_cannot_be_read_stops_everything(tmp_path: Path, content: str) -> None:
    from remove import NoReceipt, read_receipt

    path = tmp_path / "receipt.json"
    path.write_text(content)

    with pytest.raises(NoReceipt):
        read_receipt(path)


def test_our_own_things_in_the_engine_are_those_of_this_host(tmp_path: Path) -> None:
    from remove_engine import own_filters, own_images

    assert own_filters(tmp_path, ["default"]) == ["label=dockercomp.instance=default"]
    folder = tmp_path / "launcher"
    folder.mkdir()
    (folder / "host.json").write_text('{"id": "h"}')
    job = "sha256:" + "a" * 64
    on_its_way = "registry.example/x@sha256:" + "c" * 64
    brought = [{"reference": job, "id": job}, {"reference": on_its_way, "id": None}]
    (folder / "images.json").write_text(json.dumps({"images": brought}))

    assert own_filters(tmp_path, ["default"]) == ["label=dockercomp.host=h"]
    assert own_images({"images": ["sha256:" + "b" * 64]}, tmp_path) == ["sha256:" + "b" * 64, job, on_its_way]
