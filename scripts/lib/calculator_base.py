"""What a calculator's image stands on: one language's packages of one Debian release, without documentation."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import base_image
from docker_cli import INPUT_LABEL, Cannot, docker, find_image

#: Releases, by the name that jobs' labels have for the system.
RELEASES = {"debian-11": "bullseye", "debian-12": "bookworm", "debian-13": "trixie"}
PUBLIC_MIRROR = "http://deb.debian.org/debian"

#: Left out of every base, but for the licences that go with the programs.
LEFT_OUT = (
    *("usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/i18n", "usr/share/zoneinfo"),
    *("usr/share/lintian", "usr/share/bug", "usr/share/bash-completion", "usr/share/ri"),
    *("usr/share/node_modules", "usr/lib/node_modules", "usr/include"),
    # This machine's name, mirror and proxies are nobody's business.
    *("etc/apt/sources.list", "etc/apt/apt.conf.d/99mmdebstrap", "etc/hostname", "etc/resolv.conf"),
    *("usr/lib/*/gconv", "usr/lib/*/libmvec.*", "lib/*/libmvec.*", "usr/lib/*/perl/debian-config-data*"),
    *("var/lib/gems", "usr/lib/ruby/gems", "usr/share/rubygems-integration", "usr/lib/*/ruby/vendor_ruby"),
    *("usr/bin/openssl", "usr/share/ca-certificates", "usr/share/perl/*/unicore/*.txt", "usr/bin/dpkg*"),
    *("usr/sbin/dpkg*", "usr/share/dpkg", "bin/tar", "usr/bin/tar", "usr/share/base-files"),
)


@dataclass(frozen=True)
class Language:
    """How a language comes into an image, and says its version."""

    package: str  #: of Debian
    interpreter: tuple[str, ...]  #: a command that reads a program from stdin
    version: str  #: the program that prints the version


LANGUAGES: Mapping[str, Language] = {
    "python": Language(
        "python3-minimal",
        ("python3", "-I", "-S", "-"),
        "import sys; print('%d.%d.%d' % sys.version_info[:3])",
    ),
    "perl": Language("perl-base", ("perl",), 'printf "%vd\\n", $^V;'),
    "ruby": Language("ruby", ("ruby", "--disable-gems"), "puts RUBY_VERSION"),
    "node": Language("nodejs", ("node", "-"), "console.log(process.versions.node)"),
    "lua": Language("lua5.4", ("lua5.4", "-"), "print((_VERSION:gsub('Lua ', '')))"),
    "awk": Language("gawk", ("gawk", "-f", "/dev/stdin"), 'BEGIN { print PROCINFO["version"] }'),
    "tcl": Language("tcl8.6", ("tclsh8.6",), "puts [info patchlevel]"),
}


def build(language: str, system: str, prefix: str, cache: Path) -> str:
    """The tag of the base for a language on a release, extracted from packages; raises Cannot."""
    tag, key = f"{prefix}/{language}:{RELEASES[system]}", recipe(language, system)
    image = find_image(tag)
    if image is not None and image.input == key:
        return tag
    name = f"calculator-{language}-{RELEASES[system]}"
    archive = cache / f"{name}-{key[:16]}.tar"
    if not archive.exists():
        extract(LANGUAGES[language].package, RELEASES[system], archive)
        for old in cache.glob(f"{name}-*.tar"):
            if old != archive:
                old.unlink()
    docker("import", "--change", f"LABEL {INPUT_LABEL}={key}", str(archive), tag)
    return tag


def recipe(language: str, system: str) -> str:
    """Hex sha256 of all that decides what the base contains, but for the mirror's point releases."""
    parts = [LANGUAGES[language].package, RELEASES[system], platform.machine(), *LEFT_OUT]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def extract(package: str, suite: str, archive: Path) -> None:
    """Write the tar archive of a package and all it needs; raises Cannot."""
    patterns = " ".join(f'"$1"/{pattern}' for pattern in LEFT_OUT)
    options = [
        *("--variant=extract", f"--include={package},base-files"),
        f"--extract-hook=rm -rf {patterns}",
        '--extract-hook=find "$1/usr/share/doc" ! -type d ! -name copyright -delete',
    ]
    failed = f"mmdebstrap found no {package} in {suite}"
    base_image.make_archive(archive, suite, debian_mirror(), options, failed=failed)


def debian_mirror() -> str:
    """The machine's own mirror where it runs Debian; the public one elsewhere."""
    return base_image.mirror() if base_image.os_release().get("ID") == "debian" else PUBLIC_MIRROR


def version_of(image: str, language: str) -> str:
    """The version that the interpreter in an image says it is; raises Cannot."""
    known = LANGUAGES[language]
    command = [
        os.environ.get("DOCKER", "docker"),
        *("run", "--rm", "--interactive", "--network", "none", image, *known.interpreter),
    ]
    done = subprocess.run(command, input=known.version, capture_output=True, text=True)
    if done.returncode != 0 or not done.stdout.strip():
        raise Cannot(
            f"{language} does not run in {image}: {(done.stderr.splitlines() or ['nothing said'])[-1]}"
        )
    return done.stdout.split()[0]
