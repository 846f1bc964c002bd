"""What a job container may do, flag by flag; and when its container may be used again."""

from dataclasses import replace
from pathlib import Path

import pytest

from client_container.launcher.jobs.manifest import Allowance, check_image_name, check_manifest, check_pull
from client_container.launcher.jobs.sandbox import Sandbox, container_config, same_use
from client_container.launcher.line.wire import GivenChunk, Manifest, Pull, Refusal
from client_container.launcher.policy.policy import Policy

IMAGE = "sha256:" + "4f" * 32
SANDBOX = Sandbox(
    slot=3,
    image=IMAGE,
    allowance=Allowance(memory=512 * 2**20, cpus=1.5, disk=100 * 2**20, timeout_s=60.0),
    first_uid=730_000,
    labels={"dockercomp.instance": "default", "dockercomp.host": "h"},
    folder=Path("/slots/jobs/3-x"),
    pause=Path("/home/pause"),
    cgroup_parent="/dockercomp",
)
MANIFEST = Manifest(image=IMAGE, action=("/bin/x",), env={"A": "1"}, timeout_s=60.0, project="sums", task="t")
CHUNK = GivenChunk(id="c", run=0, input="1")
POLICY = Policy(containers=2, cpus=2.0, memory=2**30, disk=2**30)


def host_config(**changes):
    return container_config(replace(SANDBOX, **changes))["HostConfig"]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("Init", True),
        ("NetworkMode", "none"),
        ("ReadonlyRootfs", True),
        ("CapDrop", ["ALL"]),
        ("SecurityOpt", ["no-new-privileges:true"]),
        ("PidsLimit", 258),
        ("Memory", 512 * 2**20),
        ("MemorySwap", 512 * 2**20),
        ("NanoCpus", 1_500_000_000),
        ("IpcMode", "private"),
        ("CgroupnsMode", "private"),
        ("CgroupParent", "/dockercomp"),
        ("ShmSize", 256 * 2**20),
        ("LogConfig", {"Type": "none"}),
        ("RestartPolicy", {"Name": "no"}),
    ],
)
def test_every_flag_of_the_sandbox_is_set(flag, value):
    assert host_config()[flag] == value


def test_nothing_that_widens_the_sandbox_is_in_it():
    config = container_config(SANDBOX)

    widening = {
        "Privileged",
        "CapAdd",
        "Devices",
        "DeviceRequests",
        "PidMode",
        "UsernsMode",
        "Binds",
        "VolumesFrom",
    }
    assert not widening & (config["HostConfig"].keys() | config.keys())
    assert "seccomp" not in str(config) and "apparmor" not in str(config)


def test_graphics_processors_are_asked_for_only_by_a_job_that_needs_them():
    plain, with_gpu = host_config(), host_config(gpu=True)

    assert with_gpu.pop("DeviceRequests") == [
        {"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu", "compute", "utility"]]}
    ]
    assert with_gpu == plain


def test_graphics_processors_are_given_only_by_a_volunteer_who_says_so():
    manifest = replace(MANIFEST, gpu=True)

    with pytest.raises(Refusal, match="does not lend its graphics processors"):
        check_manifest(manifest, CHUNK, policy=POLICY, running=0)

    assert check_manifest(manifest, CHUNK, policy=replace(POLICY, gpu=True), running=0)


def test_the_limits_of_files_come_from_the_allowance():
    limits = {one["Name"]: (one["Soft"], one["Hard"]) for one in host_config()["Ulimits"]}

    assert limits == {"core": (0, 0), "nofile": (1024, 1024), "fsize": (100 * 2**20,) * 2}
    assert host_config()["Tmpfs"] == {
        "/tmp": f"rw,noexec,nosuid,nodev,size={256 * 2**20},nr_inodes=16384,mode=1777"
    }


def test_the_only_mounts_are_the_jobs_own_folders_and_the_pause_program():
    mounts = {one["Target"]: (one["Source"], one["ReadOnly"]) for one in host_config()["Mounts"]}

    assert mounts == {
        "/.dockercomp/pause": ("/home/pause", True),
        "/in": ("/slots/jobs/3-x/in", True),
        "/out": ("/slots/jobs/3-x/out", False),
        "/checkpoint": ("/slots/jobs/3-x/checkpoint", False),
    }
    assert all(one["Type"] == "bind" for one in host_config()["Mounts"])


def test_nothing_outlives_a_program_in_the_kernels_tables():
    assert host_config()["Sysctls"] == {
        "kernel.shmmni": "0",
        "kernel.msgmni": "0",
        "kernel.sem": "0 0 0 0",
        "fs.mqueue.queues_max": "0",
    }


def test_the_processes_that_keep_it_open_have_a_uid_that_no_job_has():
    uids = {replace(SANDBOX, slot=slot).uid for slot in range(900)}

    assert container_config(SANDBOX)["User"] == "731998:731998"
    assert SANDBOX.uid == 731_003
    assert SANDBOX.pause_uid not in uids and not uids & set(range(730_000, 731_000))


def test_an_image_can_neither_run_something_beside_the_job_nor_take_our_labels():
    config = container_config(SANDBOX)

    assert config["Healthcheck"] == {"Test": ["NONE"]}
    assert (config["Entrypoint"], config["Cmd"]) == (["/.dockercomp/pause"], [])
    assert config["Labels"] == {
        "dockercomp.instance": "default",
        "dockercomp.host": "h",
        "dockercomp.kind": "job",
        "dockercomp.slot": "3",
        "dockercomp.config": "",
    }


def test_a_container_is_used_again_for_another_chunk_of_the_same_job():
    same = same_use(replace(SANDBOX, folder=Path("/other")), replace(MANIFEST, timeout_s=5.0))

    assert same == same_use(SANDBOX, MANIFEST)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "other"},
        {"project": "other"},
        {"action": ("/bin/y",)},
        {"env": {"A": "2"}},
        {"memory_mb": 1},
        {"image": "sha256:" + "00" * 32},
    ],
    ids=str,
)
def test_it_is_not_used_again_for_anything_else(changes):
    assert same_use(SANDBOX, replace(MANIFEST, **changes)) != same_use(SANDBOX, MANIFEST)


def test_other_limits_or_another_slot_need_another_container():
    stricter = replace(SANDBOX, allowance=replace(SANDBOX.allowance, memory=2**28))

    assert same_use(stricter, MANIFEST) != same_use(SANDBOX, MANIFEST)
    assert same_use(replace(SANDBOX, slot=4), MANIFEST) != same_use(SANDBOX, MANIFEST)


def check(running=0, policy=POLICY, **changes):
    return check_manifest(replace(MANIFEST, **changes), CHUNK, policy=policy, running=running)


def test_a_job_that_names_no_limits_gets_one_share_of_the_host():
    assert check() == Allowance(memory=2**29, cpus=1.0, disk=2**28, timeout_s=60.0)


def test_a_job_gets_what_it_asks_for_within_its_share():
    got = check(memory_mb=100, cpus=0.5, disk_mb=10)

    assert got == Allowance(memory=100 * 2**20, cpus=0.5, disk=10 * 2**20, timeout_s=60.0)


@pytest.mark.parametrize("limit", [{"memory_mb": 513}, {"cpus": 1.01}, {"disk_mb": 257}], ids=str)
def test_a_job_that_wants_more_than_the_policy_gives_is_refused(limit):
    with pytest.raises(Refusal) as refused:
        check(**limit)

    assert refused.value.code == "not_allowed"


def test_a_project_that_the_volunteer_did_not_name_is_refused():
    with pytest.raises(Refusal, match="does not run the project 'sums'"):
        check(policy=replace(POLICY, projects=("digits",)))
    assert check(policy=replace(POLICY, projects=("digits", "sums")))


def test_no_more_jobs_run_than_the_policy_has_containers():
    with pytest.raises(Refusal) as refused:
        check(running=2)

    assert refused.value.code == "busy"


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        f"registry.example:5000/lab/fit@{IMAGE}",
        f"fit@{IMAGE}",
        f"docker.io/library/python:3.12-slim@{IMAGE}",
    ],
)
def test_images_named_by_digest_are_taken(image):
    check_image_name(image)


@pytest.mark.parametrize(
    "image",
    [
        "python",
        "python:3.12",
        "sha256:short",
        "sha256:" + "4F" * 32,
        f"../x@{IMAGE}",
        f"x@{IMAGE}\n",
        f"--privileged@{IMAGE}",
        f"a b@{IMAGE}",
        f"{IMAGE} ",
    ],
)
def test_images_named_otherwise_are_refused(image):
    with pytest.raises(Refusal) as refused:
        check_image_name(image)

    assert refused.value.code == "not_allowed"


def test_only_an_image_named_by_its_id_comes_as_a_file():
    check_pull(Pull(image=IMAGE, file="9c" * 32, project="sums"), policy=POLICY)

    with pytest.raises(Refusal):
        check_pull(Pull(image=f"fit@{IMAGE}", file="9c" * 32, project="sums"), policy=POLICY)
    with pytest.raises(Refusal):
        check_pull(Pull(image=IMAGE, project="sums"), policy=replace(POLICY, projects=()))
