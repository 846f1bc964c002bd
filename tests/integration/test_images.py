"""Images of jobs: the operator puts an archive here, clients fetch it in pieces, tasks learn what it runs on."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from release_parts import old_archive, tar

from source_server.image_archive import BadArchive
from source_server.services.files import images as service
from source_server.services.files.images import Images

pytestmark = pytest.mark.mongo

LARGE = tar({"opt/data": random.Random(7).randbytes(3_000_000)})  # several chunks of GridFS


@pytest.fixture
def image(stores: Any, tmp_path: Path) -> Any:
    """An image of about 3 MB that is stored."""
    path = tmp_path / "image.tar"
    path.write_bytes(old_archive(LARGE, tags=["fits:1"])[1])
    return Images(stores).add(path)[0]


def test_it_arrives_whole_with_its_hash_for_containers_and_accounts_alone(
    app: Any, image: Any, volunteer: Any, scientist: Any
) -> None:
    path = f"/images/{image.id}.tar"
    who = volunteer()

    fetched = who.call("GET", path)

    assert hashlib.sha256(fetched.data).hexdigest() == fetched.headers["Dockercomp-Sha256"] == image.sha256
    assert fetched.content_length == image.bytes == len(fetched.data)
    assert b"fits:1" not in fetched.data
    assert scientist.call("GET", path).status_code == 200
    who.key = who.account_key
    assert who.call("HEAD", path).status_code == 200
    assert app.test_client().get(path).status_code == 401
    who.key = "dcc_nobody"
    assert who.call("GET", path).status_code == 401


def test_a_fetch_that_broke_off_goes_on_where_it_was(image: Any, volunteer: Any) -> None:
    who, path = volunteer(), f"/images/{image.id}.tar"
    whole = who.call("GET", path).data

    rest = who.call("GET", path, headers={"Range": "bytes=1048577-"})
    middle = who.call("GET", path, headers={"Range": "bytes=1000000-2000000"})
    beyond = who.call("GET", path, headers={"Range": f"bytes={len(whole)}-"})
    known = who.call("GET", path, headers={"If-None-Match": f'"{image.sha256}"'})

    assert (rest.status_code, rest.data) == (206, whole[1048577:])
    assert rest.headers["Content-Range"] == f"bytes 1048577-{len(whole) - 1}/{len(whole)}"
    assert (middle.status_code, middle.data) == (206, whole[1000000:2000001])
    assert beyond.status_code == 416 and known.status_code == 304


def test_a_large_one_passes_through_a_few_megabytes_of_memory(
    volunteer: Any, stores: Any, tmp_path: Path
) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(old_archive(tar({"data": random.Random(1).randbytes(40_000_000)}))[1])
    image, who, digest = Images(stores).add(path)[0], volunteer(), hashlib.sha256()

    tracemalloc.start()
    for piece in who.call("GET", f"/images/{image.id}.tar").response:
        digest.update(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert digest.hexdigest() == image.sha256
    assert peak < 12_000_000


@pytest.mark.parametrize("name", ["sha256:" + "0" * 64, "sha256:zz", "..", "%2e%2e%2fimages"])
def test_what_is_not_here_is_404(volunteer: Any, name: str) -> None:
    assert volunteer().call("GET", f"/images/{name}.tar").status_code == 404


def test_readers_leave_threads_for_the_others(app: Any, image: Any, volunteer: Any, new_key: Any) -> None:
    who, path = volunteer(), f"/images/{image.id}.tar"
    readers = [volunteer(account_key=new_key("volunteer")) for _ in range(service.MOST_READERS)]
    slow = [one._http.get(path, headers={"Authorization": f"Bearer {one.key}"}) for one in readers]

    one_more = who.call("GET", path)
    for reader in slow:
        reader.close()

    assert one_more.status_code == 503 and int(one_more.headers["Retry-After"]) > 0
    for _ in range(service.MOST_READERS + 1):  # none of these keeps a place
        assert who.call("GET", "/images/sha256:0.tar").status_code == 404
        assert who.call("HEAD", path).status_code == 200
        assert who.call("GET", path).status_code == 200


def test_one_account_does_not_take_all_places_of_readers(image: Any, volunteer: Any, new_key: Any) -> None:
    greedy, other, path = volunteer(), volunteer(account_key=new_key("volunteer")), f"/images/{image.id}.tar"
    keys = [greedy.key, greedy.account_key] * service.EACH  # its containers and itself count together
    answers = [greedy._http.get(path, headers={"Authorization": f"Bearer {key}"}) for key in keys]

    statuses = [one.status_code for one in answers]
    others = other.call("GET", path).status_code
    for one in answers:
        one.close()

    assert statuses == [200] * service.EACH + [503] * service.EACH and others == 200
    assert greedy.call("GET", path).status_code == 200


def test_a_task_needs_the_architecture_of_its_image_whichever_came_first(
    app: Any, stores: Any, scientist: Any, volunteer: Any, tmp_path: Path
) -> None:
    image_id, archive = old_archive(tar({"fit": b"fit"}), architecture="arm64")
    (tmp_path / "image.tar").write_bytes(archive)
    before = scientist.running(1, image=image_id)
    Images(stores).add(tmp_path / "image.tar")
    after = scientist.running(1, image=image_id)
    pc = volunteer(runtimes=["sandbox"], labels={"arch": "x86_64"})
    pi = volunteer(runtimes=["sandbox"], labels={"arch": "arm64"})

    refused, taken = pc.claim(5), pi.claim(5)

    assert refused == [] and {one["id"] for one in taken} == {f"{before}.0", f"{after}.0"}


def test_an_archive_comes_in_once_however_many_bring_it_and_leaves_nothing_else(
    stores: Any, raw: Any, tmp_path: Path
) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(old_archive(LARGE)[1])

    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(lambda _: Images(stores).add(path), range(4)))

    assert [new for _, new in added].count(True) == 1
    assert len({one.id for one, _ in added}) == 1
    assert raw["image_files.files"].count_documents({}) == raw.images.count_documents({}) == 1


def test_a_bad_archive_and_a_crash_in_the_middle_leave_nothing_that_is_found(
    stores: Any, raw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(b"no archive")
    with pytest.raises(BadArchive):
        Images(stores).add(path)
    path.write_bytes(old_archive(LARGE)[1])
    monkeypatch.setattr(stores.images, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Images(stores).add(path)
    monkeypatch.undo()

    assert Images(stores).all() == [] and raw["image_files.files"].count_documents({}) == 1
    assert stores.images.remove_leftovers(stores.clock.now() + timedelta(seconds=5)) == 1
    assert raw["image_files.files"].count_documents({}) == raw["image_files.chunks"].count_documents({}) == 0


def test_the_commands_take_files_packed_files_and_pipes_and_show_the_id(
    stores: Any, raw: Any, mongo_uri: str, tmp_path: Path
) -> None:
    env = {**os.environ, "DOCKERCOMP_MONGO_URI": mongo_uri, "DOCKERCOMP_DATABASE": raw.name}
    image_id, archive = old_archive(tar({"fit": b"fit"}))
    (tmp_path / "image.tar").write_bytes(archive)
    (tmp_path / "image.tar.gz").write_bytes(gzip.compress(archive))

    def run(*argv: str, stdin: bytes = b"") -> Any:
        command = [sys.executable, "-m", "source_server.cli", "image", *argv]
        return subprocess.run(command, env=env, input=stdin, capture_output=True)

    first, listed = run("add", "-", stdin=archive), run("list")
    packed, removed, nothing = (
        run("add", str(tmp_path / "image.tar.gz")),
        run("remove", image_id),
        run("list"),
    )
    file, gone, bad = (
        run("add", str(tmp_path / "image.tar")),
        run("remove", "sha256:no"),
        run("add", "-", stdin=b"x"),
    )

    assert first.returncode == 0 and first.stdout.decode().startswith(image_id), first.stderr
    assert listed.stdout.decode().startswith(f"{image_id}\tx86_64\t")
    assert b"here already" in packed.stdout and removed.returncode == 0 and nothing.stdout == b""
    assert file.returncode == 0 and gone.returncode == 2 and b"There is no image" in gone.stderr
    assert bad.returncode == 2 and b"is no archive" in bad.stderr and b"Traceback" not in bad.stderr
