"""`dockercomp-server up --containers 2`: the server's own client containers, every job in a sandbox of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from parts import require
from product import Product, running, until

from client_container.launcher.wall.firewall import layout
from dockercomp.api import Server
from dockercomp.config import read_key

pytestmark = [pytest.mark.docker, pytest.mark.mongo]

ROOT = Path(__file__).parents[2]

STATIC = """
#include <stdio.h>
#include <unistd.h>
int main(void) {
    char text[4096];
    fread(text, 1, sizeof text - 1, stdin);
    printf("%d\\n", (int) getuid());
    return 0;
}
"""


@pytest.fixture(scope="module")
def product(engine: docker.DockerClient, client_image: str, mongod_binary: Path) -> Iterator[Product]:
    """A server with two client containers of its own."""
    if os.geteuid() != 0:
        require("the server's own containers need root")
    with running("--beat-seconds", "1", "--containers", "2", "--image", client_image) as found:
        until(lambda: len(live(found)) == 2, seconds=180, what=f"two containers\n{found.log()}")
        yield found


def test_they_are_trusted_sandboxes_with_labels_and_the_self_test_has_passed(product: Product) -> None:
    containers = live(product)

    for one in containers:
        assert one["runtimes"] == ["sandbox"] and one["self_test"] == "passed"
        assert one["built_in"] and one["trusted"] and one["account"] == "built-in"
        assert one["labels"]["arch"] and one["labels"]["os"] == "linux"
    assert {one["labels"]["slot"] for one in containers} == {0, 1}


def test_jobs_run_in_their_image_as_users_of_their_own_and_the_archive_comes_from_the_server(
    product: Product, engine: docker.DockerClient, static_image: tuple[str, Path]
) -> None:
    image, archive = static_image
    engine.images.remove(image, force=True)

    product.run("dockercomp-server", "image", "add", str(archive))
    table = computed(product, image, rows=6)

    assert {row["runtime"] for row in table} == {"sandbox"} and {row["image"] for row in table} == {image}
    assert {row["verdict"] for row in table} == {"accepted"}
    users = {int(row["answer"]) for row in table}
    facts = json.loads((product.home / "built-in" / "etc" / "launcher.json").read_text())
    reserved = range(facts["first_uid"] + 1000, facts["first_uid"] + 2000)
    assert users <= set(reserved)


def test_a_job_without_an_image_has_no_process_runtime_to_run_in_and_is_told_so(product: Product) -> None:
    server = Server(product.address, read_key(Path(product.env["DOCKERCOMP_KEY_FILE"])))
    server.add_project("sums")

    task = server.add_task("sums", ["/bin/cat"])
    rows = product.home / "one.csv"
    rows.write_text("a\n1\n")
    server.upload(task, rows)
    server.assign("sums")
    why = product.run("dockercomp", "why", f"{task}.0")
    assert "the runtime process, as the job names no image" in why
    product.run("dockercomp", "cancel", task)


def test_the_slots_lie_on_a_file_system_of_fixed_size_and_the_launcher_has_nothing_of_the_server(
    product: Product,
) -> None:
    slots = product.home / "built-in" / "slots"
    (launcher,) = product_launchers(product)

    environment = Path(f"/proc/{launcher}/environ").read_bytes()

    assert os.path.ismount(slots)
    assert os.statvfs(slots).f_blocks * os.statvfs(slots).f_frsize < 4 * 2**30
    assert b"DOCKERCOMP_" not in environment
    assert oct((product.home / "built-in" / "etc" / "account.key").stat().st_mode)[-3:] == "600"


def test_nothing_of_it_is_left_after_down(
    engine: docker.DockerClient, client_image: str, mongod_binary: Path
) -> None:
    if os.geteuid() != 0:
        require("the server's own containers need root")
    with running("--beat-seconds", "1", "--containers", "1", "--image", client_image) as found:
        until(lambda: len(live(found)) == 1, seconds=180, what=f"one container\n{found.log()}")
        etc = found.home / "built-in" / "etc"
        instance = json.loads((etc / "launcher.json").read_text())["instance"]
        label = {"label": f"dockercomp.instance={instance}"}
        there = engine.containers.list(filters=label)
        slots = found.home / "built-in" / "slots"

        found.run("dockercomp-server", "down")

        assert len(there) == 1
        assert not engine.containers.list(all=True, filters=label)
        assert not engine.networks.list(filters=label)
        assert not os.path.ismount(slots)


def test_what_is_left_when_all_of_it_was_killed_goes_with_the_next_down(
    engine: docker.DockerClient, client_image: str, mongod_binary: Path
) -> None:
    if os.geteuid() != 0:
        require("the server's own containers need root")
    with running("--beat-seconds", "1", "--containers", "1", "--image", client_image) as found:
        until(lambda: len(live(found)) == 1, seconds=180, what=f"one container\n{found.log()}")
        etc = found.home / "built-in" / "etc"
        instance = json.loads((etc / "launcher.json").read_text())["instance"]
        label = {"label": f"dockercomp.instance={instance}"}
        for process in (*product_launchers(found), int(found.run("dockercomp-server", "status").split()[1])):
            os.kill(process, signal.SIGKILL)
        until(lambda: not product_launchers(found), seconds=30, what="its end")
        left, before = engine.containers.list(filters=label), rules()

        said = found.run("dockercomp-server", "down")
        again = found.run("dockercomp-server", "down")

        assert len(left) == 1 and "Containers of a launcher that was killed: 1 removed." in said
        assert "removed" not in again
        assert not engine.containers.list(all=True, filters=label)
        assert not engine.networks.list(filters=label)
        assert layout(instance).bridge in before and layout(instance).bridge not in rules()
        assert not os.path.ismount(found.home / "built-in" / "slots")


def test_without_root_it_is_refused_with_a_way_out() -> None:
    if os.geteuid() != 0:
        require("root, to become somebody else")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    home = Path(tempfile.mkdtemp(prefix="dockercomp-nobody-"))
    home.chmod(0o777)
    env = {**os.environ, "DOCKERCOMP_HOME": str(home)}
    command = [sys.executable, "-B", "-m", "source_server.cli", "up", "--containers", "1"]

    done = subprocess.run([*nobody, *command], capture_output=True, text=True, env=env, cwd=ROOT)

    left = list(home.iterdir())
    shutil.rmtree(home)
    assert done.returncode == 2 and "--containers needs root" in done.stderr and "--processes" in done.stderr
    assert not left


# --- how


@pytest.fixture(scope="module")
def static_image(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The id and the archive of an image with one static program, which says as whom it runs."""
    folder = tmp_path_factory.mktemp("static")
    (folder / "who.c").write_text(STATIC)
    compiled = subprocess.run(["gcc", "-static", "-o", folder / "who", folder / "who.c"], capture_output=True)
    if compiled.returncode != 0:
        require("a C compiler with static libraries")
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY who /who\nCMD ["/who"]\n')
    image, _ = engine.images.build(path=str(folder), labels={"dockercomp.test": "n"}, rm=True)
    archive = folder / "who.tar"
    subprocess.run(["docker", "save", "-o", archive, image.id], check=True)
    return str(image.id), archive


def live(product: Product) -> list[dict[str, Any]]:
    server = Server(product.address, read_key(Path(product.env["DOCKERCOMP_KEY_FILE"])))
    return [one for one in server.containers() if one["state"] == "live"]


def computed(
    product: Product, image: str, *, rows: int, action: Callable[[], list[str]] = list
) -> list[dict[str, str]]:
    """A task in that image, from its data to its table."""
    data = product.home / "rows.csv"
    data.write_text("a\n" + "".join(f"{n}\n" for n in range(rows)))
    server = Server(product.address, read_key(Path(product.env["DOCKERCOMP_KEY_FILE"])))
    server.add_project("who")
    task = server.add_task("who", action(), image=image)
    server.upload(task, data)
    server.assign("who")
    product.run("dockercomp", "watch", task)
    return product.rows(task)


def rules() -> str:
    """The packet filter of this machine."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    command = [shutil.which("iptables-save", path=path) or "iptables-save"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def product_launchers(product: Product) -> list[int]:
    """The processes of this server's own launcher."""
    etc = str(product.home / "built-in" / "etc")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if etc in command and "serve" in command and "client_container.launcher" in command:
                found.append(int(entry.name))
    return found
