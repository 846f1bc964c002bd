"""What a process in a client container can and cannot do, tried from inside and read from the engine."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator

import docker
import pytest
from docker.models.containers import Container
from launching import KEY, Instance, run_inside

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def container(
    engine: docker.DockerClient, client_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    """One client container of a launcher, with a main process that only sleeps."""
    dockerfile = f'FROM {client_image}\nENTRYPOINT ["python3", "-c", "import time; time.sleep(10**6)"]\n'
    image, _ = engine.images.build(fileobj=io.BytesIO(dockerfile.encode()), rm=True)
    instance = Instance(
        engine, tmp_path_factory.mktemp("home"), f"test-{uuid.uuid4().hex[:8]}", str(image.id)
    )
    try:
        instance.up("--memory=256m", containers=1)
        yield instance.containers()["0"]
    finally:
        instance.run(instance.command("down", "--purge"))
        engine.images.remove(str(image.id), force=True)


def test_the_root_file_system_cannot_be_written(container: Container) -> None:
    program = """
import json, os
def refusal(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return error.errno
os.chdir("/")
print(json.dumps([refusal(f) for f in ("/x", "/etc/passwd", "/opt/dockercomp/lib/x.py", "/usr/bin/x")]))
"""
    read_only, denied = 30, 13

    assert set(run_inside(container, program)) <= {read_only, denied}


def test_it_runs_as_a_reserved_user_without_groups_or_capabilities(container: Container) -> None:
    program = """
import json, os
status = dict(line.rstrip().split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
print(json.dumps([os.getuid(), os.getgid(), os.getgroups(), [status[name] for name in names]]))
"""
    uid, gid, groups, (*capabilities, no_new_privileges, seccomp) = run_inside(container, program)

    assert uid == gid == 730_000
    assert set(groups) <= {gid}
    assert set(capabilities) == {"0" * 16}
    assert no_new_privileges == "1"
    assert seccomp == "2"


def test_a_fork_bomb_ends_at_the_limit(container: Container) -> None:
    program = """
import json, os, signal
children, refused = [], None
while refused is None and len(children) < 400:
    try:
        child = os.fork()
    except OSError as error:
        refused = error.errno
    else:
        if child == 0:
            signal.pause()
        children.append(child)
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print(json.dumps([refused, len(children)]))
"""
    refused, made = run_inside(container, program)

    assert refused == 11  # EAGAIN
    assert made < 256


def test_a_program_put_into_tmp_does_not_run(container: Container) -> None:
    program = """
import json, os, shutil, subprocess
shutil.copy("/bin/busybox" if os.path.exists("/bin/busybox") else "/bin/true", "/tmp/tool")
os.chmod("/tmp/tool", 0o755)
try:
    subprocess.run(["/tmp/tool", "true"])
    print(json.dumps("it ran"))
except PermissionError:
    print(json.dumps("refused"))
"""
    assert run_inside(container, program) == "refused"


def test_more_memory_than_allowed_kills_only_the_process_that_took_it(container: Container) -> None:
    program = "import signal; blocks = [bytearray(2**20) for _ in range(400)]; signal.pause()"

    outcome = container.exec_run(["python3", "-c", program])

    container.reload()
    assert outcome.exit_code == 137
    assert container.status == "running"


def test_a_file_cannot_grow_without_bound_and_no_core_is_dumped(container: Container) -> None:
    program = """
import json, resource
print(json.dumps([resource.getrlimit(kind) for kind in
    (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)]))
"""
    assert run_inside(container, program) == [[0, 0], [1024, 1024], [2**30, 2**30]]


def test_the_engine_cannot_be_reached_from_inside(container: Container) -> None:
    program = """
import json, os
print(json.dumps([path for path in ("/var/run/docker.sock", "/run/docker.sock") if os.path.exists(path)]))
"""
    assert run_inside(container, program) == []
    assert all(mount["Type"] == "volume" for mount in container.attrs["Mounts"])


def test_the_account_key_is_a_file_for_its_container_and_is_told_to_nobody_else(container: Container) -> None:
    program = """
import json, os
key = os.stat("/var/lib/dockercomp/account.key")
spool = os.stat("/var/lib/dockercomp/spool")
print(json.dumps([open(os.environ["DOCKERCOMP_KEY_FILE"]).read().strip(),
    oct(key.st_mode & 0o7777), key.st_uid, oct(spool.st_mode & 0o7777), spool.st_uid]))
"""
    assert run_inside(container, program) == [KEY, "0o400", 730_000, "0o700", 730_000]
    assert KEY not in json.dumps(container.attrs)
    assert KEY not in str(container.top())


def test_the_engine_has_every_limit_that_was_asked_for(container: Container) -> None:
    host = container.attrs["HostConfig"]

    assert host["Init"] is True
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] in (None, [])
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["PidsLimit"] == 256
    assert host["Memory"] == 256 * 2**20
    assert host["MemorySwap"] in (256 * 2**20, -1)  # -1: this kernel does not account for swap
    assert host["NanoCpus"] == 10**9
    assert host["IpcMode"] == "private"
    assert host["ShmSize"] == 64 * 2**20
    assert host["RestartPolicy"]["Name"] in ("no", "")
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
    assert not host["Binds"]
    assert not host["Devices"]


def test_the_client_is_told_which_image_it_runs_in(container: Container) -> None:
    env = dict(entry.split("=", 1) for entry in container.attrs["Config"]["Env"])

    assert env["DOCKERCOMP_IMAGE"] == container.attrs["Image"]
    assert str(uuid.UUID(env["DOCKERCOMP_HOST_ID"])) == env["DOCKERCOMP_HOST_ID"]
