"""The launcher on a real Docker engine: what it keeps alive, what it removes, what it leaves alone."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container
from launching import Instance, wait_for

pytestmark = pytest.mark.docker

SLEEPER = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); time.sleep(10**6)"
CRASHER = "import sys; sys.exit('the account is unknown')"


def build(engine: docker.DockerClient, base: str, program: str) -> str:
    """An image whose main process is a Python program; nothing here needs a source server."""
    assert '"' not in program
    dockerfile = f'FROM {base}\nENTRYPOINT ["python3", "-c", "{program}"]\n'
    image, _ = engine.images.build(fileobj=io.BytesIO(dockerfile.encode()), rm=True)
    assert image.id
    return image.id


SPOOL = "/var/lib/dockercomp/spool"


@pytest.fixture(scope="module")
def sleeper(engine: docker.DockerClient, client_image: str) -> Iterator[str]:
    image = build(engine, client_image, SLEEPER)
    yield image
    engine.images.remove(image, force=True)


@pytest.fixture(scope="module")
def crasher(engine: docker.DockerClient, client_image: str) -> Iterator[str]:
    image = build(engine, client_image, CRASHER)
    yield image
    engine.images.remove(image, force=True)


@pytest.fixture
def make_instance(engine: docker.DockerClient, tmp_path: Path) -> Iterator[Callable[[str], Instance]]:
    """Makes instances that share a state folder; all are taken down afterwards, volumes included."""
    made: list[Instance] = []

    def make(image: str) -> Instance:
        instance = Instance(engine, tmp_path, f"test-{uuid.uuid4().hex[:8]}", image)
        made.append(instance)
        return instance

    yield make
    for instance in made:
        instance.run(instance.command("down", "--purge"))


@pytest.fixture
def instance(make_instance: Callable[[str], Instance], sleeper: str) -> Instance:
    return make_instance(sleeper)


@pytest.fixture
def start_foreign(engine: docker.DockerClient, sleeper: str) -> Iterator[Callable[..., Container]]:
    """Starts containers that are not the launcher's."""
    started: list[Container] = []

    def start(**labels: str) -> Container:
        named = {name.replace("_", "."): value for name, value in labels.items()}
        container = engine.containers.create(sleeper, network_mode="none", labels=named)
        started.append(container)
        # A launcher that takes it for an orphan may be quicker than we are.
        with contextlib.suppress(docker.errors.APIError):
            container.start()
        return container

    yield start
    for container in started:
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True)


def test_up_returns_when_all_wanted_containers_run(instance: Instance) -> None:
    done = instance.up(containers=4)

    assert "4 client containers" in done.stdout
    assert sorted(instance.containers()) == ["0", "1", "2", "3"]
    facts = instance.status()
    assert (facts["wanted"], facts["running"], facts["launcher"]["running"]) == (4, 4, True)


def one_file(name: str, content: bytes) -> bytes:
    """A tar archive of one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_a_killed_container_is_replaced_in_its_slot_with_its_volume(instance: Instance) -> None:
    instance.up(containers=2)
    before = instance.containers()
    # By archive, not by exec: an engine in a chroot shows a program that it executes another file system.
    assert before["1"].put_archive(SPOOL, one_file("result", b"kept"))

    before["1"].kill("SIGKILL")

    after = wait_for(
        lambda: (now := instance.containers()).get("1") and now["1"].id != before["1"].id and now
    )
    assert after["0"].id == before["0"].id
    stream, _ = after["1"].get_archive(f"{SPOOL}/result")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        member = archive.extractfile("result")
        assert member is not None and member.read() == b"kept"


def test_a_container_that_somebody_removed_is_replaced(instance: Instance) -> None:
    instance.up(containers=2)
    before = instance.containers()

    before["0"].remove(force=True)

    wait_for(lambda: len(now := instance.ids()) == 2 and now["0"] != before["0"].id)


def test_down_removes_its_containers_and_keeps_their_volumes(instance: Instance) -> None:
    instance.up(containers=3)

    done = instance.down()

    assert "3 client containers removed, volumes kept" in done.stdout
    assert instance.containers() == {}
    assert len(instance.volumes()) == 3
    assert instance.status()["launcher"]["running"] is False


def test_down_with_purge_removes_the_volumes_too(instance: Instance) -> None:
    instance.up(containers=2)

    instance.down("--purge")

    assert instance.volumes() == set()


def test_containers_of_others_are_left_alone(
    instance: Instance, start_foreign: Callable[..., Container]
) -> None:
    plain = start_foreign()
    namesake = start_foreign(dockercomp_instance=instance.name, dockercomp_host="another-state-folder")

    instance.up(containers=1)
    instance.down("--purge")

    for container in (plain, namesake):
        container.reload()
        assert container.status == "running"


def test_orphans_with_its_own_labels_are_removed(
    instance: Instance, start_foreign: Callable[..., Container]
) -> None:
    instance.up(containers=1)
    own = {name.replace(".", "_"): value for name, value in instance.labels.items()}

    orphans = [start_foreign(**own, dockercomp_slot="7"), start_foreign(**own)]

    names = {orphan.id for orphan in orphans}
    everything = {"all": True, "ignore_removed": True}
    wait_for(lambda: not names & {one.id for one in instance.engine.containers.list(**everything)})
    assert list(instance.containers()) == ["0"]


def test_two_instances_run_side_by_side(make_instance: Callable[[str], Instance], sleeper: str) -> None:
    one, two = make_instance(sleeper), make_instance(sleeper)
    one.up(containers=2)
    two.up(containers=1)
    users = {c.attrs["Config"]["User"] for each in (one, two) for c in each.containers().values()}
    before = two.ids()

    one.down()

    assert len(users) == 3
    assert one.containers() == {}
    assert two.ids() == before


def test_a_second_launcher_of_one_instance_is_refused(instance: Instance) -> None:
    instance.up(containers=1)
    before = instance.ids()

    second = instance.run(instance.up_command())

    assert second.returncode == 2
    assert second.stderr.startswith(
        f"Error: A launcher of instance '{instance.name}' is already running (pid "
    )
    assert instance.ids() == before


def test_containers_of_a_killed_launcher_are_taken_over(instance: Instance) -> None:
    instance.up(containers=2)
    before = instance.ids()
    os.kill(instance.status()["launcher"]["pid"], signal.SIGKILL)

    instance.up(containers=2)

    assert instance.ids() == before


def test_containers_are_replaced_when_what_they_should_be_changed(instance: Instance) -> None:
    instance.up(containers=2)
    before = instance.ids()
    os.kill(instance.status()["launcher"]["pid"], signal.SIGKILL)

    instance.up("--cpus=0.5", containers=2)

    assert not set(before.values()) & set(instance.ids().values())
    assert {one.attrs["HostConfig"]["NanoCpus"] for one in instance.containers().values()} == {500_000_000}


def test_fewer_wanted_containers_leave_no_surplus(instance: Instance) -> None:
    instance.up(containers=3)
    kept = instance.ids()["0"]
    os.kill(instance.status()["launcher"]["pid"], signal.SIGKILL)

    instance.up(containers=1)

    assert instance.ids() == {"0": kept}


def test_sigterm_ends_a_launcher_in_the_foreground_and_its_containers(instance: Instance) -> None:
    env = {**os.environ, "DOCKERCOMP_HOME": str(instance.home)}
    launcher = subprocess.Popen(instance.up_command(containers=2), env=env, stderr=subprocess.PIPE)
    wait_for(lambda: (instance.home / "launcher" / "host.json").exists() and len(instance.containers()) == 2)

    launcher.terminate()
    launcher.communicate(timeout=60)

    assert launcher.returncode == 0
    assert instance.containers() == {}


def test_a_client_that_crashes_at_its_start_is_a_failed_up_that_says_what_it_said(
    make_instance: Callable[[str], Instance], crasher: str
) -> None:
    instance = make_instance(crasher)

    done = instance.run(instance.up_command("--detach", "--wait=6", containers=1))

    assert done.returncode == 2
    assert "the account is unknown" in done.stderr
    ended = (instance.home / "launcher" / instance.name / "launcher.log").read_text().count("container ended")
    # At once, then after 1, 2 and 4 seconds: a loop without pauses would have got to 20 and more.
    assert 1 <= ended <= 5
    assert instance.status()["launcher"]["running"] is False


def test_an_image_that_is_not_there_is_one_sentence(instance: Instance) -> None:
    done = instance.run([*instance.up_command(), "--image=dockercomp/never-built"])

    assert done.returncode == 2
    assert done.stderr == (
        "Error: Image 'dockercomp/never-built' is not on this machine: "
        "build it with scripts/build-images or pull it.\n"
    )


def test_without_an_engine_every_command_says_so(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")

    for command in (instance.up_command(), instance.command("status"), instance.command("down")):
        done = instance.run(command)

        assert done.returncode == 2
        assert done.stderr.startswith("Error: No Docker engine answers")
        assert "Traceback" not in done.stderr
