"""Fetching from real git servers, and repositories that were made to do harm."""

from __future__ import annotations

import base64
import io
import os
import shutil
import socket
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parts import require
from product import free_port
from repositories import GitOverHttp, Repository, git, git_over_http

from source_server.domain.refusal import BadInput, NotAllowed, Refusal, TooLarge, Unavailable
from source_server.receivers.git_address import allowed, parse
from source_server.receivers.git_fetch import Fetched, GitSettings, NotFetched, fetched
from source_server.receivers.git_process import Git


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repositories")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def http(repository: Repository) -> Iterator[GitOverHttp]:
    with git_over_http(repository.bare.parent) as server:
        yield server


def settings(*listed: str, **bounds: Any) -> GitSettings:
    return GitSettings(listed=listed, **{"most_bytes": 5_000_000, "most_files": 200, "seconds": 30, **bounds})


def tar_of(tree: Fetched) -> dict[str, tarfile.TarInfo]:
    out = io.BytesIO()
    tree.copy_tar(out)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        return {one.name: one for one in archive}


def refused(url: str, commit: str, how: GitSettings, kind: type[Refusal] = BadInput) -> str:
    """The sentence with which the whole tree of that commit is refused."""
    with pytest.raises(kind) as caught, fetched(url, commit, how) as tree:
        tar_of(tree)
    return str(caught.value)


def test_a_commit_is_fetched_over_http_without_its_history_and_nothing_stays(
    repository: Repository, http: GitOverHttp, scratch: Path
) -> None:
    repository.commit({"secret-of-yesterday": "x" * 1000})
    (repository.work / "secret-of-yesterday").unlink()
    commit = repository.commit({"a": "1", "b/c": "2"})
    url = f"{http.url}/study.git"

    with fetched(url, commit, settings(f"{http.url}/"), scratch=scratch) as tree:
        found = sorted(tar_of(tree))
        [folder] = scratch.iterdir()
        commits = git("rev-list", "--all", cwd=folder / "repository.git")
        objects = git("count-objects", "-v", cwd=folder / "repository.git")

    assert found == ["a", "b/c"] and commits == ""
    assert "in-pack: 5" in objects
    assert list(scratch.iterdir()) == []


def test_an_older_commit_than_the_branch_is_fetched_by_its_name(
    repository: Repository, http: GitOverHttp
) -> None:
    older = repository.commit({"a": "1"})
    repository.commit({"a": "2"})

    with fetched(f"{http.url}/study.git", older, settings(f"{http.url}/")) as tree:
        assert tree.read("a", 10) == b"1"


def test_the_same_commit_gives_the_same_bytes_from_anywhere(
    repository: Repository, http: GitOverHttp
) -> None:
    repository.work.joinpath("link").symlink_to("a")
    commit = repository.commit({"a": "1", "ünï/" + "long" * 40: "2", "z" * 120: "3"})
    listed = settings(f"{http.url}/", repository.url)
    made = []

    for url in (f"{http.url}/study.git", repository.url, repository.url):
        out = io.BytesIO()
        with fetched(url, commit, listed) as tree:
            tree.copy_tar(out)
        made.append(out.getvalue())

    assert made[0] == made[1] == made[2]


def test_a_repository_with_sha256_names_is_fetched_too(tmp_path: Path) -> None:
    bare, work = tmp_path / "new.git", tmp_path / "work"
    git("init", "--quiet", "--bare", "--object-format=sha256", str(bare))
    git("init", "--quiet", "--object-format=sha256", str(work))
    (work / "a").write_text("1")
    git("add", "a", cwd=work)
    git("commit", "--quiet", "-m", "one", cwd=work)
    git("push", "--quiet", str(bare), "HEAD:main", cwd=work)
    commit = git("rev-parse", "HEAD", cwd=work)

    with fetched(f"file://{bare}", commit, settings(f"file://{bare}")) as tree:
        assert len(commit) == 64 and tree.read("a", 10) == b"1"


def test_a_redirect_is_not_followed(repository: Repository, http: GitOverHttp) -> None:
    commit = repository.commit({"a": "1"})
    with git_over_http(repository.bare.parent) as other:
        http.redirect_to = other.url

        said = refused(f"{http.url}/study.git", commit, settings(f"{http.url}/", f"{other.url}/"), NotFetched)

        assert other.asked == [] and "cannot be fetched from" in said


def test_the_operators_credentials_are_shown_and_never_said(
    repository: Repository, http: GitOverHttp, tmp_path: Path
) -> None:
    commit = repository.commit({"a": "1"})
    http.password = "Basic " + base64.b64encode(b"ada:t0ken").decode()
    store = tmp_path / 'it\'s "the" store'
    store.write_text(http.url.replace("http://", "http://ada:t0ken@") + "\n")
    url, listed = f"{http.url}/study.git", f"{http.url}/"

    with fetched(url, commit, settings(listed, credentials=store)) as tree:
        assert tree.read("a", 10) == b"1"
    store.write_text(store.read_text().replace("t0ken", "wr0ng"))
    said = refused(url, commit, settings(listed, credentials=store), NotFetched)
    unasked = refused(url, commit, settings(listed), NotFetched)

    assert "wr0ng" not in said + unasked and "cannot be fetched from" in said


def test_settings_and_hooks_of_the_server_s_user_are_not_read(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repository.commit(
        {"a": "1", ".gitattributes": "* filter=evil\n", ".lfsconfig": "[lfs]\nurl = http://x\n"}
    )
    home, owned = tmp_path / "home", tmp_path / "owned"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f"[core]\n\tsshCommand = touch {owned}\n\tfsmonitor = touch {owned}\n\thooksPath = {home}\n"
        f'[url "ext::touch {owned} %S "]\n\tinsteadOf = file://\n[uploadpack]\n\tpackObjectsHook = touch {owned};\n'
        f'[filter "evil"]\n\tsmudge = touch {owned}\n'
    )
    for name, value in {
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_SSH_COMMAND": f"touch {owned}",
        "GIT_EXTERNAL_DIFF": f"touch {owned}",
        "GIT_ALLOW_PROTOCOL": "ext:file",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.ext::touch {owned} %S .insteadOf",
        "GIT_CONFIG_VALUE_0": "file://",
    }.items():
        monkeypatch.setenv(name, value)

    with fetched(repository.url, commit, settings(repository.url)) as tree:
        found = tar_of(tree)

    assert sorted(found) == [".gitattributes", ".lfsconfig", "a"] and not owned.exists()


# --- addresses


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ext::sh -c id",
        "fd::17",
        "-oProxyCommand=id",
        "--upload-pack=id",
        "git@host:path",
        "host:path",
        "/srv/git/x",
        "./x",
        "git://host/x",
        "ftp://host/x",
        "HTTPS://host/x",
        "https://",
        "https:///x",
        "https://host",
        "https://host/",
        "https://-host/x",
        "https://host/../x",
        "https://host/x/./y",
        "https://host//x",
        "https://host/x?y=z",
        "https://host/x#y",
        "https://host/%2e%2e/x",
        "https://host/a b",
        "https://host/a\nb",
        "https://host/x\n",
        "https://host\\@evil/x",
        "https://user@host/x",
        "https://user:word@host/x",
        "https://host:99999999/x",
        "ssh://-oProxyCommand=id/x",
        "ssh://-user@host/x",
        "ssh://user:word@host/x",
        "file://host/x",
        "file:///",
        "file:///srv/../etc",
        "file:///srv/git/x\0",
        "https://host/" + "x" * 600,
    ],
)
def test_an_address_in_any_but_the_plain_form_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse(text)


@pytest.mark.parametrize(
    ("text", "listed", "may"),
    [
        ("https://git.example/lab/x", ["https://git.example/lab/"], True),
        ("https://git.example/lab", ["https://git.example/lab/"], True),
        ("https://git.example/laboratory/x", ["https://git.example/lab"], False),
        ("https://git.example.evil/lab/x", ["https://git.example/"], False),
        ("https://git.example:444/lab/x", ["https://git.example/"], False),
        ("http://git.example/lab/x", ["https://git.example/"], False),
        ("ssh://git@git.example/x", ["ssh://git@git.example/"], True),
        ("ssh://root@git.example/x", ["ssh://git@git.example/"], False),
        ("http://10.0.0.1/x", ["https://*/"], False),
        ("file:///srv/git/x", ["https://*/"], False),
        ("https://git.example/x", [], False),
    ],
)
def test_only_what_begins_as_the_operator_says_is_allowed(text: str, listed: list[str], may: bool) -> None:
    if may:
        assert allowed(text, listed).text == text
    else:
        with pytest.raises(NotAllowed):
            allowed(text, listed)


@pytest.mark.parametrize(
    "found",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["::1"],
        ["fe80::1%eth0"],
        ["93.184.216.34", "192.168.0.1"],
    ],
)
def test_a_name_of_a_private_address_is_refused_unless_it_is_listed(found: list[str]) -> None:
    with pytest.raises(NotAllowed, match="private address"):
        allowed("https://rebound.example/x", ["https://*/"], resolve=lambda host, port: found)

    assert allowed("https://rebound.example/x", ["https://*/", "https://rebound.example/"]).pinned is None


def test_the_address_that_was_looked_at_is_the_one_that_git_calls(tmp_path: Path) -> None:
    address = allowed("https://git.example/x", ["https://*/"], resolve=lambda host, port: ["8.8.8.8"])
    git_of = Git(folder=tmp_path, address=address, deadline=time.monotonic() + 60, most_bytes=1_000_000)

    git_of.prepare()

    said = git("config", "--file", str(tmp_path / "config"), "http.curloptResolve")
    assert (address.pinned, said) == ("8.8.8.8", "git.example:443:8.8.8.8")


@pytest.mark.parametrize(("listed", "passed"), [("https://*/", False), ("https://git.example/", True)])
def test_a_proxy_which_would_look_the_name_up_itself_is_only_for_hosts_that_are_listed_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str, passed: bool
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "proxy.example")
    address = allowed("https://git.example/x", [listed], resolve=lambda host, port: ["8.8.8.8"])
    git_of = Git(folder=tmp_path, address=address, deadline=time.monotonic() + 60, most_bytes=1_000_000)

    git_of.prepare()

    said = git_of.run("-c", "alias.surroundings=!env", "surroundings").decode()
    assert (said.count("proxy.example") == 4) is passed
    assert ("proxy.example" in said) is passed


def test_a_link_in_an_allowed_folder_does_not_lead_out_of_it(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit({"a": "1"})
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    (open_folder / "study.git").symlink_to(repository.bare)

    said = refused(f"file://{open_folder}/study.git", commit, settings(f"file://{open_folder}/"), NotAllowed)

    assert "does not fetch from" in said


def test_a_host_that_does_not_answer_is_tried_again_later(scratch: Path) -> None:
    listed = f"http://127.0.0.1:{free_port()}/"

    with (
        pytest.raises(Unavailable, match="does not answer now"),
        fetched(listed + "x", "a" * 40, settings(listed)),
    ):
        pass


def test_a_server_that_never_ends_its_answer_is_given_up_in_time(scratch: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        listed = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        began = time.monotonic()

        with (
            pytest.raises(TooLarge, match="took too long"),
            fetched(listed + "x", "a" * 40, settings(listed, seconds=2), scratch=scratch),
        ):
            pass

    assert time.monotonic() - began < 60
    assert list(scratch.iterdir()) == [] and _children(scratch) == []


def _children(scratch: Path) -> list[str]:
    """Processes that still work in the scratch folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                where = (entry / "cwd").readlink()
            except OSError:
                continue
            if where.is_relative_to(scratch):
                found.append(entry.name)
    return found


# --- trees


def test_a_commit_that_is_larger_than_allowed_is_not_fetched_whole(
    repository: Repository, scratch: Path
) -> None:
    commit = repository.commit({"noise": os.urandom(20_000_000)})  # git may write 16 MiB beside the tree

    with (
        pytest.raises(TooLarge, match="too large"),
        fetched(repository.url, commit, settings(repository.url, most_bytes=1_000_000), scratch=scratch),
    ):
        pass

    assert list(scratch.iterdir()) == []


def test_a_small_pack_that_becomes_a_huge_tree_is_refused_before_it_is_read(repository: Repository) -> None:
    commit = repository.commit({f"zeros-{n}": b"\0" * 3_000_000 for n in range(3)})

    said = refused(repository.url, commit, settings(repository.url))

    assert "more than 5000000 bytes together" in said


def test_a_tree_of_ten_to_the_tenth_files_is_refused_at_once(repository: Repository) -> None:
    blob = repository.blob(b"x")
    tree = git(
        "mktree", cwd=repository.bare, text="".join(f"100644 blob {blob}\tf{n}\n" for n in range(10)).encode()
    )
    for _ in range(9):
        lines = "".join(f"040000 tree {tree}\td{n}\n" for n in range(10))
        tree = git("mktree", cwd=repository.bare, text=lines.encode())
    commit = git("commit-tree", tree, "-m", "bomb", cwd=repository.bare)
    began = time.monotonic()

    said = refused(repository.url, commit, settings(repository.url))

    assert "more than 200 files" in said and time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("link", "/etc/passwd"),
        ("link", "../x"),
        ("link", "a/../../x"),
        ("a/link", "../../x"),
        ("a/link", "b/.."),
        ("link", ".." + "/.." * 30),
        ("link", "a\nb"),
    ],
)
def test_a_link_that_leads_out_of_the_tree_is_refused(repository: Repository, path: str, target: str) -> None:
    (repository.work / path).parent.mkdir(exist_ok=True)
    (repository.work / path).symlink_to(target)
    commit = repository.commit({"b/x": "1"})

    said = refused(repository.url, commit, settings(repository.url))

    assert path in said and "points to" in said


@pytest.mark.parametrize(
    ("path", "target"), [("link", "b"), ("b/link", "../b/x"), ("c/d/link", "../.."), ("link", "./b//x")]
)
def test_a_link_that_stays_in_the_tree_is_kept(repository: Repository, path: str, target: str) -> None:
    (repository.work / path).parent.mkdir(parents=True, exist_ok=True)
    (repository.work / path).symlink_to(target)
    commit = repository.commit({"b/x": "1"})

    with fetched(repository.url, commit, settings(repository.url)) as tree:
        found = tar_of(tree)

    assert found[path].linkname == target


def test_two_names_that_differ_in_case_or_form_only_are_refused(repository: Repository) -> None:
    for files in ({"A/x": "", "a/y": ""}, {"é": "", "e\u0301": ""}, {"straße": "", "STRASSE": ""}):
        commit = repository.commit(files)

        assert "where case does not count" in refused(repository.url, commit, settings(repository.url))
        git("rm", "--quiet", "-r", ".", cwd=repository.work)


@pytest.mark.parametrize("name", [b".git", b".GIT", b"..", b".", b"a\xff", b"a\x07", b"x" * 300])
def test_names_that_no_file_may_have_are_refused(repository: Repository, name: bytes) -> None:
    blob = repository.blob(b"x")
    raw = b"100644 " + name + b"\0" + bytes.fromhex(blob)
    tree = git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", cwd=repository.bare, text=raw)
    commit = git("commit-tree", tree, "-m", "odd", cwd=repository.bare)

    refused(repository.url, commit, settings(repository.url))


def test_a_name_with_a_slash_inside_a_tree_is_refused(repository: Repository) -> None:
    blob = repository.blob(b"x")
    raw = b"100644 ../../etc/cron.d/x\0" + bytes.fromhex(blob)
    tree = git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", cwd=repository.bare, text=raw)
    commit = git("commit-tree", tree, "-m", "odd", cwd=repository.bare)

    refused(repository.url, commit, settings(repository.url))


def test_a_submodule_stays_an_empty_folder_and_is_not_fetched(repository: Repository) -> None:
    blob = repository.blob(b'[submodule "m"]\n\tpath = m\n\turl = ext::touch /tmp/owned-by-a-submodule\n')
    commit = repository.crafted([("100644", ".gitmodules", blob), ("160000", "m", "1" * 40)])

    try:
        with fetched(repository.url, commit, settings(repository.url)) as tree:
            assert tar_of(tree)["m"].isdir()
    except NotFetched:
        pass  # git itself refuses such an address in .gitmodules
    assert not Path("/tmp/owned-by-a-submodule").exists()


def test_a_plain_submodule_is_an_empty_folder(repository: Repository) -> None:
    commit = repository.crafted([("100644", "a", repository.blob(b"1")), ("160000", "m", "1" * 40)])

    with fetched(repository.url, commit, settings(repository.url)) as tree:
        found = tar_of(tree)

    assert found["m"].isdir() and found["a"].isreg()


def test_a_file_is_read_only_if_it_is_one(repository: Repository) -> None:
    (repository.work / "dockercomp.yml").symlink_to("a")
    commit = repository.commit({"a": "x" * 100, "b/c": ""})

    with fetched(repository.url, commit, settings(repository.url)) as tree:
        assert tree.read("nothing", 10) is None
        for path, says in (("dockercomp.yml", "it is a link"), ("a", "more than 10")):
            with pytest.raises(BadInput, match=says):
                tree.read(path, 10)


def test_git_over_ssh_is_asked_without_a_terminal(repository: Repository) -> None:
    if shutil.which("ssh") is None:
        require("no ssh")
    commit = repository.commit({"a": "1"})
    listed = "ssh://git@127.0.0.1:1/"

    with pytest.raises((NotFetched, Unavailable)), fetched(f"{listed}study.git", commit, settings(listed)):
        pass
