"""Images of a bare volunteer machine with systemd as process 1, for tests of the installer.

Three for each Debian suite, each on the one before: `bare` (a fresh system, curl and sudo), `warm` (what the installer
downloads is there already, but not installed), `engine` (warm, with the distribution's Docker engine installed).
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import base_image
from build_images import cache_folder, say
from docker_cli import INPUT_LABEL, docker, find_image

STAGES = ("bare", "warm", "engine")
#: what every installed Debian has, a minimal root lacks, and the tests need
SYSTEM = (
    *("ca-certificates", "curl", "dbus", "e2fsprogs", "iproute2", "kmod", "procps", "sudo"),
    *("systemd", "systemd-sysv"),
)
LOCKS = (Path("locks/install.txt"), Path("locks/launcher.txt"))
EXTRA_CAS = Path("/usr/local/share/ca-certificates")
TOP = Path(__file__).parents[2]

# The command of each machine: a container's /sys is read-only, and engines below it need it writable and shared.
BOOT = """#!/bin/sh
mount -o remount,bind,rw /sys
awk '$2 ~ "^/sys/fs/cgroup" { print $2 }' /proc/self/mounts | while read -r point; do
	mount -o remount,bind,rw "$point"
done
mount --make-rshared /
# No udev here makes them.
[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
for number in $(seq 0 63); do [ -e /dev/loop$number ] || mknod /dev/loop$number b 7 $number; done
exec /sbin/init
"""

BARE = """FROM {base}
COPY cas/ /usr/local/share/ca-certificates/
COPY apt/ /etc/apt/apt.conf.d/
COPY boot /usr/local/sbin/boot
RUN update-ca-certificates >/dev/null 2>&1 && rm -f /etc/machine-id && touch /etc/machine-id
STOPSIGNAL SIGRTMIN+3
CMD ["/usr/local/sbin/boot"]
"""

WARM = """FROM {base}
COPY locks/ /tmp/locks/
RUN export DEBIAN_FRONTEND=noninteractive; apt-get -qq update \\
 && apt-get -qq install -y --no-install-recommends python3-venv python3-apt openssl e2fsprogs iptables \\
 && apt-get -qq install -y --no-install-recommends --download-only docker.io gpg {client} \\
 && python3 -m venv /tmp/venv \\
 && for lock in install launcher; do \\
 /tmp/venv/bin/pip download --quiet --cert /etc/ssl/certs/ca-certificates.crt --require-hashes -d /opt/wheels \\
 -r /tmp/locks/$lock.txt || exit 1; done \\
 && printf '[global]\\nno-index = true\\nfind-links = /opt/wheels\\n' >/etc/pip.conf \\
 && rm -rf /tmp/venv /tmp/locks /root/.cache
"""

ENGINE = """FROM {base}
RUN DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends docker.io {client}
"""


def machine_image(suite: str, stage: str) -> str:
    """The tag of that image, built if it is missing or its recipe changed; raises Cannot."""
    os.chdir(TOP)
    tag = f"dockercomp-test/machine:{suite}-{stage}"
    key = recipe(suite, stage)
    known = find_image(tag)
    if known is not None and known.input == key:
        return tag
    say(f"Building the image of a volunteer machine: {suite}, {stage} ...")
    if stage == "bare":
        base = f"dockercomp-test/machine:{suite}-root"
        docker("import", str(root_archive(suite)), base)
    else:
        base = machine_image(suite, STAGES[STAGES.index(stage) - 1])
    client = "docker-cli" if suite not in ("bullseye", "bookworm") else ""
    template = {"bare": BARE, "warm": WARM, "engine": ENGINE}[stage]
    with tempfile.TemporaryDirectory(dir=base_image.temporary_folder()) as folder:
        fill_context(Path(folder), template.format(base=base, client=client))
        docker("build", "--tag", tag, "--label", f"{INPUT_LABEL}={key}", folder, env={"DOCKER_BUILDKIT": "0"})
    return tag


def fill_context(context: Path, dockerfile: str) -> None:
    """All that any of the Dockerfiles copies."""
    (context / "Dockerfile").write_text(dockerfile)
    (context / "boot").write_text(BOOT)
    (context / "boot").chmod(0o755)
    for name, sources in contents().items():
        (context / name).mkdir()
        for source in sources:
            shutil.copy(source, context / name)


def contents() -> dict[str, Sequence[Path]]:
    """Files of this machine that a machine inside it needs as well, to reach a mirror through the same network."""
    return {
        "cas": sorted(EXTRA_CAS.glob("*.crt")),
        "apt": sorted(Path("/etc/apt/apt.conf.d").glob("99*")),
        "locks": LOCKS,
    }


def recipe(suite: str, stage: str) -> str:
    """Hex sha256 of all that decides what the image contains, but for the mirror's point releases."""
    parts = [suite, stage, platform.machine(), BOOT, BARE, *SYSTEM]
    files = [*contents()["cas"], *contents()["apt"]]
    if stage != "bare":
        parts, files = [*parts, WARM, ENGINE if stage == "engine" else ""], [*files, *LOCKS]
    digest = hashlib.sha256("\n".join(parts).encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def root_archive(suite: str) -> Path:
    """The tar archive of the bare system, made by mmdebstrap once and kept in the cache; raises Cannot."""
    key = hashlib.sha256("\n".join([suite, platform.machine(), *SYSTEM]).encode()).hexdigest()[:16]
    archive = cache_folder() / f"machine-{suite}-{key}.tar"
    if archive.exists():
        return archive
    base_image.require_mmdebstrap(say)
    options = ["--variant=minbase", "--dpkgopt=force-unsafe-io", f"--include={','.join(SYSTEM)}"]
    failed = f"mmdebstrap could not make a {suite} system"
    base_image.make_archive(archive, suite, base_image.mirror(), options, failed=failed)
    return archive
