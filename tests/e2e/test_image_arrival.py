"""Images come to a host: by archive and from a registry, within the volunteer's limits, and nothing else is touched."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import secrets
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from parts import require
from registries import Registry, registry
from release_parts import opened, tar

from client_container.launcher.errors import EngineError
from client_container.launcher.images.images import Images
from client_container.launcher.line.wire import Refusal
from client_container.launcher.policy.policy import Policy
from source_server.image_archive import read_archive, write_untagged

pytestmark = pytest.mark.docker
__all__ = ["registry"]

LABEL = "dockercomp.test=arrival"
MB = 10**6


def docker(*argv: str, stdin: bytes | None = None) -> str:
    done = subprocess.run(["docker", *argv], input=stdin, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture
def make_image() -> Iterator[Callable[..., str]]:
    """Makes images of so many random bytes; their ids. They are gone afterwards, and so is what was made of them."""
    made: list[str] = []

    def make(size: int = 200_000, tag: str | None = None) -> str:
        content = tar({"data": secrets.token_bytes(size), "job": b"\x7fELF"})
        named = [] if tag is None else [tag]
        made.append(docker("import", "--change", f"LABEL {LABEL}", "-", *named, stdin=content))
        return made[-1]

    yield make
    for image in made:
        subprocess.run(["docker", "rmi", "--force", image], capture_output=True)


@pytest.fixture
def archive_of() -> Callable[[str], bytes]:
    """What `docker save` writes of an image."""

    def save(name: str) -> bytes:
        return subprocess.run(["docker", "save", name], capture_output=True, check=True).stdout

    return save


def untagged(saved: bytes, folder: Path) -> bytes:
    """As the source server keeps it."""
    path = folder / f"{uuid.uuid4()}.tar"
    path.write_bytes(saved)
    out = io.BytesIO()
    write_untagged(read_archive(path), out)
    path.unlink()
    return out.getvalue()


class Host:
    """A launcher's images on this machine, under a policy that tests change."""

    def __init__(self, folder: Path) -> None:
        from client_container.launcher.images.engine import ImageEngine

        self.file = folder / "images.json"
        self.policy = Policy(image_size=50 * MB, images=100 * MB)
        self.now = 1000.0
        try:
            self.engine = ImageEngine()
        except EngineError as error:
            require(str(error))
        self.images = self.started()

    def started(self, **more: Any) -> Images:
        return Images(
            engine=self.engine,
            state_file=self.file,
            policy=lambda: self.policy,
            clock=lambda: self.now,
            **more,
        )

    def load(self, content: bytes, image: str) -> Any:
        with opened(content) as descriptor:
            return self.images.load(descriptor, image)

    def ours(self) -> list[str]:
        return (
            [one["reference"] for one in json.loads(self.file.read_text())["images"]]
            if self.file.exists()
            else []
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


# --- archives


def test_an_archive_comes_under_its_id_without_a_name_and_is_remembered(
    host: Host, make_image: Any, archive_of: Any, tmp_path: Path
) -> None:
    image = make_image(tag="dockercomp-test/arrival:v1")
    saved = untagged(archive_of("dockercomp-test/arrival:v1"), tmp_path)
    docker("rmi", "--force", image)
    assert host.images.find(image) is None
    seen: list[tuple[int, int]] = []

    with opened(saved) as descriptor:
        came = host.images.load(descriptor, image, lambda done, total: seen.append((done, total)))

    assert came.id == image and came == host.images.find(image)
    assert came.architecture in ("x86_64", "arm64") and came.size >= 200_000
    assert json.loads(docker("inspect", "--format", "{{json .RepoTags}}", image)) == []
    assert host.ours() == [image] and seen and all(0 < done <= total for done, total in seen)
    assert host.started().brought()[0].id == image, "it is remembered after a restart"


def test_an_archive_with_a_tag_is_refused_and_the_volunteers_own_tag_stays(
    host: Host, make_image: Any, archive_of: Any
) -> None:
    own = make_image(tag="dockercomp-test/arrival:mine")
    other = make_image()
    docker("tag", other, "dockercomp-test/arrival:mine")
    tagged = archive_of("dockercomp-test/arrival:mine")
    docker("tag", own, "dockercomp-test/arrival:mine")
    docker("rmi", "--force", other)

    with pytest.raises(Refusal, match="carries a tag") as refused:
        host.load(tagged, other)

    assert refused.value.code == "bad_request"
    assert docker("inspect", "--format", "{{.Id}}", "dockercomp-test/arrival:mine") == own
    assert host.images.find(other) is None and host.ours() == []


def test_a_tampered_archive_never_becomes_an_image(
    host: Host, make_image: Any, archive_of: Any, tmp_path: Path
) -> None:
    image = make_image()
    saved = bytearray(untagged(archive_of(image), tmp_path))
    docker("rmi", "--force", image)
    before = host.engine.ids()
    saved[len(saved) // 2] ^= 1

    with pytest.raises(Refusal, match="not the one"):
        host.load(bytes(saved), image)

    assert host.engine.ids() == before and host.ours() == []


def test_an_archive_that_changes_after_its_check_never_becomes_an_image(
    host: Host, make_image: Any, archive_of: Any, tmp_path: Path
) -> None:
    image = make_image(size=3 * MB)
    saved = untagged(archive_of(image), tmp_path)
    docker("rmi", "--force", image)
    before = host.engine.ids()

    with opened(saved) as descriptor:

        def spoil(done: int, total: int) -> None:
            os.pwrite(descriptor, b"EVIL", len(saved) // 2)

        with pytest.raises(Refusal, match="has changed"):
            host.images.load(descriptor, image, spoil)

    assert host.engine.ids() == before and host.ours() == []


def test_an_image_that_is_too_large_says_so_before_the_engine_hears_of_it(
    host: Host, make_image: Any, archive_of: Any, tmp_path: Path
) -> None:
    image = make_image(size=3 * MB)
    saved = untagged(archive_of(image), tmp_path)
    docker("rmi", "--force", image)
    host.policy = Policy(image_size=2 * MB, images=100 * MB)

    with pytest.raises(Refusal, match=r"image too large here: more than 2\.0 MB unpacked") as refused:
        host.load(saved, image)

    assert refused.value.code == "image_too_large" and host.images.find(image) is None


def test_a_disk_that_is_nearly_full_takes_no_image(
    host: Host, make_image: Any, archive_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image()
    saved = untagged(archive_of(image), tmp_path)
    docker("rmi", "--force", image)
    monkeypatch.setattr(host.engine, "free_disk", lambda: 512 * 2**20)

    with pytest.raises(Refusal, match=r"the disk has 536\.9 MB free"):
        host.load(saved, image)


def test_a_disk_without_room_for_more_files_takes_no_image(
    host: Host, make_image: Any, archive_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image()
    saved = untagged(archive_of(image), tmp_path)
    docker("rmi", "--force", image)
    monkeypatch.setattr(host.engine, "free_inodes", lambda: 20_001)

    with pytest.raises(Refusal, match=r"2 files, and the disk has room for 20001") as refused:
        host.load(saved, image)

    assert refused.value.code == "image_too_large" and host.images.find(image) is None
    assert not host.images._arriving, "nothing is kept of what was to arrive"


def test_an_image_of_empty_files_is_remembered_with_the_room_that_it_takes(
    host: Host, archive_of: Any, tmp_path: Path
) -> None:
    content = tar({f"{secrets.token_hex(8)}/": None for _ in range(100)})
    image = docker("import", "--change", f"LABEL {LABEL}", "-", stdin=content)
    saved = untagged(archive_of(image), tmp_path)
    docker("rmi", "--force", image)

    host.load(saved, image)

    try:
        [one] = host.images.brought()
        assert one.size == 100 * 4096
    finally:
        assert host.images.remove_all() == [image]


def test_an_image_that_cannot_be_removed_does_not_keep_the_others(
    host: Host, make_image: Any, archive_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [make_image() for _ in range(2)]
    saved = {image: untagged(archive_of(image), tmp_path) for image in images}
    for image in images:
        docker("rmi", "--force", image)
    for image in images:
        host.now += 1
        host.load(saved[image], image)
    remove = host.engine.remove

    def hang(name: str) -> bool:
        if name == images[0]:
            raise EngineError("It hangs.")
        return remove(name)

    monkeypatch.setattr(host.engine, "remove", hang)
    host.policy = Policy(image_size=50 * MB, images=0)

    assert host.images.trim() == [images[1]]


def test_an_image_that_was_here_before_is_used_and_never_removed(
    host: Host, make_image: Any, archive_of: Any, tmp_path: Path
) -> None:
    image = make_image()
    saved = untagged(archive_of(image), tmp_path)

    came = host.load(saved, image)
    host.policy = Policy(image_size=50 * MB, images=0)
    host.images.trim()
    host.images.remove_all()

    assert came.id == image and host.ours() == []
    assert host.images.find(image) is not None


# --- leaving


def test_the_least_recently_used_leaves_first_but_none_that_is_in_use_or_was_given_a_name(
    host: Host, make_image: Any, archive_of: Any, tmp_path: Path
) -> None:
    images = [make_image(size=MB) for _ in range(4)]
    saved = {image: untagged(archive_of(image), tmp_path) for image in images}
    for image in images:
        docker("rmi", "--force", image)
    for image in images:
        host.now += 1
        host.load(saved[image], image)
    oldest, named, busy, newest = images
    docker("tag", named, "dockercomp-test/arrival:adopted")
    container = docker("create", "--label", LABEL, busy, "/job")
    host.now += 1000
    host.images.used(oldest)
    host.policy = Policy(image_size=50 * MB, images=1_500_000)

    try:
        gone = host.images.trim()
    finally:
        docker("rm", container)

    assert gone == [newest, oldest]
    assert host.images.find(named) is not None and host.images.find(busy) is not None
    assert named not in host.ours(), "it is the volunteer's now"
    assert host.images.remove_all() == [busy]
    assert host.images.find(named) is not None


def test_an_arrival_makes_room_for_itself(
    host: Host, make_image: Any, archive_of: Any, tmp_path: Path
) -> None:
    images = [make_image(size=MB) for _ in range(3)]
    saved = {image: untagged(archive_of(image), tmp_path) for image in images}
    for image in images:
        docker("rmi", "--force", image)
    host.policy = Policy(image_size=50 * MB, images=2_500_000)
    for image in images[:2]:
        host.now += 1
        host.load(saved[image], image)
    host.now += 1000
    host.images.find(images[0])  # a job asked for it

    host.load(saved[images[2]], images[2])

    assert set(host.ours()) == {images[0], images[2]} and host.images.find(images[1]) is None
    assert host.images.trim(in_use=[images[0]]) == []


def test_what_was_on_its_way_when_the_launcher_ended_is_its_own_all_the_same(
    host: Host, make_image: Any, archive_of: Any, tmp_path: Path
) -> None:
    came, never = make_image(), "sha256:" + "0" * 64
    entries = [{"reference": one, "id": None, "size": 0, "last_used": 1.0} for one in (came, never)]
    host.file.write_text(json.dumps({"images": entries}))

    again = host.started()

    assert [one.id for one in again.brought()] == [came] and again.brought()[0].size > 0
    assert again.remove_all() == [came]


# --- registries


def lent(registry: Registry, **more: Any) -> Policy:
    return Policy(
        **{
            "image_size": 50 * MB,
            "images": 100 * MB,
            "registries": (registry.name,),
            "private_registries": True,
            **more,
        }
    )


def test_an_image_is_pulled_by_its_digest_once(host: Host, registry: Registry, make_image: Any) -> None:
    image = make_image(size=MB)
    reference = registry.push(image)
    host.policy = lent(registry)
    seen: list[tuple[int, int]] = []

    came = host.images.pull(reference, lambda done, total: seen.append((done, total)))
    registry.close()
    again = host.images.pull(reference)

    assert came.id == again.id == image and host.images.find(reference) == came
    assert host.ours() == [reference] and all(0 <= done <= total for done, total in seen)
    assert json.loads(docker("inspect", "--format", "{{json .RepoTags}}", image)) == []
    assert host.images.remove_all() == [reference] and host.images.find(reference) is None
    assert image not in host.engine.ids()


def test_only_listed_registries_are_asked_and_private_ones_only_if_allowed(
    host: Host, registry: Registry, make_image: Any
) -> None:
    reference = registry.push(make_image())
    before = host.engine.ids()

    for policy, sentence in (
        (Policy(), "takes images from no registry at all"),
        (lent(registry, registries=("docker.io", "ghcr.io")), "from docker.io, ghcr.io, not from"),
        (lent(registry, private_registries=False), "has a private address"),
    ):
        host.policy = policy
        with pytest.raises(Refusal, match=sentence) as refused:
            host.images.pull(reference)
        assert refused.value.code == "not_allowed"
    assert host.engine.ids() == before


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:192.168.1.1", "224.0.0.1"]
)
def test_a_name_that_leads_into_the_volunteers_network_is_refused(host: Host, address: str) -> None:
    host.policy = Policy(registries=("registry.example",))
    both = [ipaddress.ip_address("93.184.215.14"), ipaddress.ip_address(address)]
    images = host.started(find_addresses=lambda name, port: both)

    with pytest.raises(Refusal, match="private address"):
        images.pull("registry.example/fits@sha256:" + "0" * 64)


def test_an_image_too_large_is_not_even_begun(host: Host, registry: Registry, make_image: Any) -> None:
    image = make_image(size=3 * MB)
    reference = registry.push(image)
    host.policy = lent(registry, image_size=2 * MB)

    with pytest.raises(Refusal, match=r"image too large here: 3\.0 MB packed, at most 2\.0 MB") as refused:
        host.images.pull(reference)

    assert refused.value.code == "image_too_large" and image not in host.engine.ids()


def test_an_image_that_is_too_large_only_unpacked_is_removed_again(
    host: Host, registry: Registry, make_image: Any
) -> None:
    content = tar({"zeros": bytes(5 * MB)})
    image = docker("import", "--change", f"LABEL {LABEL}", "-", stdin=content)
    reference = registry.push(image)
    host.policy = lent(registry, image_size=2 * MB)

    with pytest.raises(Refusal, match=r"image too large here: 5\.0 MB unpacked"):
        host.images.pull(reference)

    assert image not in host.engine.ids() and host.ours() == []


def test_a_flipped_byte_in_the_registry_is_found(host: Host, registry: Registry, make_image: Any) -> None:
    reference = registry.push(make_image(size=MB))
    layer = registry.blobs()[-1]
    data = bytearray(layer.read_bytes())
    data[len(data) // 2] ^= 1
    layer.write_bytes(bytes(data))
    host.policy = lent(registry)

    with pytest.raises((EngineError, Refusal)):
        host.images.pull(reference)

    assert host.images.find(reference) is None and host.ours() == []


def test_a_flipped_byte_in_the_manifest_is_found_before_the_pull(
    host: Host, registry: Registry, make_image: Any
) -> None:
    reference = registry.push(make_image())
    digest = reference.rpartition(":")[2]
    [manifest] = [path for path in registry.blobs() if digest in str(path)]
    manifest.write_bytes(manifest.read_bytes().replace(b'"schemaVersion": 2', b'"schemaVersion": 3'))
    host.policy = lent(registry)

    with pytest.raises(Refusal, match=r"another manifest|answered"):
        host.images.pull(reference)


def test_what_the_registry_does_not_have_is_missing(host: Host, registry: Registry) -> None:
    host.policy = lent(registry)

    with pytest.raises(Refusal, match="does not have this image") as refused:
        host.images.pull(f"{registry.name}/fits@sha256:" + "0" * 64)

    assert refused.value.code == "image_missing"


def test_a_pulled_image_that_was_here_before_stays(host: Host, registry: Registry, make_image: Any) -> None:
    image = make_image()
    saved = subprocess.run(["docker", "save", image], capture_output=True, check=True).stdout
    reference = registry.push(image)
    docker("load", stdin=saved)
    host.policy = lent(registry)

    came = host.images.pull(reference)
    host.images.remove_all()

    assert came.id == image and host.ours() == [] and image in host.engine.ids()
