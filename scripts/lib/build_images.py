"""Build the images that changed. Called by scripts/build-images, from the top folder of a checkout."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import base_image
import wheels
from docker_cli import INPUT_LABEL, Cannot, docker, find_image, require_engine

CLIENT = Path("images/client")
EXAMPLES = Path("images/examples")
PACKAGE = Path("client_container")
LOCK = Path("locks/client.txt")


def main() -> int:
    wanted = arguments()
    cache = cache_folder()
    try:
        require_engine()
        for name in wanted.names:
            if name != "client" and not (EXAMPLES / name / "Dockerfile").exists():
                raise Cannot(f"There is no {EXAMPLES}/{name}/Dockerfile.")
        # Two builds at once would do the same work twice and race for the tags.
        with (cache / "build.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            build_all(wanted.names, wanted.base, wanted.tag, cache)
    except Cannot as error:
        say(f"scripts/build-images: {error}")
        return 2
    return 0


def arguments() -> argparse.Namespace:
    """The command line: base, tag, names."""
    parser = argparse.ArgumentParser(
        prog="scripts/build-images", description="Build the images that changed."
    )
    parser.add_argument("--base", default="auto", help="auto, pull, build or an image's name (default: auto)")
    parser.add_argument(
        "--tag", default="dockercomp", metavar="PREFIX", help="PREFIX/client:latest and so on"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="client, or a folder of images/examples")
    wanted = parser.parse_args()
    wanted.names = wanted.names or ["client", "pairs"]
    return wanted


def build_all(names: Iterable[str], base: str, prefix: str, cache: Path) -> None:
    """Build the client image, on which all others stand, then the examples among `names`."""
    base_tag = base_image.resolve(base, prefix, cache, say)
    client = build_client(base_tag, f"{prefix}/client:latest", cache)
    report("client", f"{prefix}/client:latest", client)
    for name in dict.fromkeys(names):
        if name != "client":
            tag = f"{prefix}/{name}:latest"
            report(name, tag, build_example(EXAMPLES / name, f"{prefix}/client:latest", tag, cache))


def build_client(base: str, tag: str, cache: Path) -> str:
    """The id of the client image on `base`, built anew only if something that goes into it changed."""
    sources, frame = client_sources(), [path for path in CLIENT.iterdir() if path.is_file()]
    key = input_hash([image_id(base)], [*frame, LOCK, *sources])
    if (known := same(tag, key)) is not None:
        return known
    with tempfile.TemporaryDirectory(dir=base_image.temporary_folder()) as folder:
        context = Path(folder)
        for path in frame:
            shutil.copy(path, context)
        shutil.copytree(wheels.install(LOCK, ("--require-hashes", *wheels.PURE), cache), context / "lib")
        for path in sources:
            (context / "lib" / path.parent).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, context / "lib" / path)
        return build(context, tag, key, f"BASE={base}")


LAUNCHER = PACKAGE / "launcher"
#: Of the launcher, what a client needs to talk to it, and to handle files as it does.
SHARED = (LAUNCHER / "line", LAUNCHER / "files")
LINE = frozenset({LAUNCHER / "__init__.py", LAUNCHER / "errors.py"})


def client_sources() -> list[Path]:
    """The files of the client, which leaves the launcher out: no client container may talk to Docker."""
    found = (path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix in (".py", ".typed"))
    return sorted(
        path
        for path in found
        if LAUNCHER not in path.parents or path in LINE or any(one in path.parents for one in SHARED)
    )


def build_example(folder: Path, client: str, tag: str, cache: Path) -> str:
    """The id of an example's image. Its requirements.txt, if any, comes as lib/ beside its Dockerfile."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    key = input_hash([image_id(client)], files)
    if (known := same(tag, key)) is not None:
        return known
    with tempfile.TemporaryDirectory(dir=base_image.temporary_folder()) as work:
        context = Path(work) / "context"
        shutil.copytree(folder, context, ignore=shutil.ignore_patterns("__pycache__"))
        if (context / "requirements.txt").exists():
            options = wheels.for_python(*python_of(client))
            shutil.copytree(wheels.install(folder / "requirements.txt", options, cache), context / "lib")
        return build(context, tag, key, f"CLIENT={client}")


def python_of(image: str) -> tuple[str, str]:
    """Version ("3.11") and machine ("x86_64") of the Python inside an image."""
    program = "import platform, sys; print('%d.%d' % sys.version_info[:2], platform.machine())"
    alone = ["run", "--rm", "--network", "none", "--entrypoint", "python3"]
    version, machine = docker(*alone, image, "-c", program).split()
    return version, machine


def build(context: Path, tag: str, key: str, argument: str) -> str:
    """Build `context` as `tag` and return the image's id."""
    say(f"Building {tag} ...")
    for path in context.rglob("*"):
        # The client runs as a uid of its own, whatever the umask was here.
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    docker("build", "--tag", tag, "--label", f"{INPUT_LABEL}={key}", "--build-arg", argument, str(context))
    return image_id(tag)


def same(tag: str, key: str) -> str | None:
    """The id of `tag` if it was built from these very inputs."""
    image = find_image(tag)
    return image.id if image is not None and image.input == key else None


def image_id(tag: str) -> str:
    """The id of an image that is here; raises Cannot when it is not."""
    image = find_image(tag)
    if image is None:
        raise Cannot(f"The image {tag} is not on this machine.")
    return image.id


def input_hash(values: Iterable[str], files: Iterable[Path]) -> str:
    """Hex sha256 of some values and of the names and contents of some files, in a fixed order."""
    digest = hashlib.sha256("\n".join(values).encode())
    for path in sorted(files):
        digest.update(f"\n{path} {hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where what is slow to make is kept, outside the checkout."""
    general = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(os.environ.get("DOCKERCOMP_CACHE") or f"{general}/dockercomp").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def report(name: str, tag: str, identity: str) -> None:
    """Tell people and programs which image it is now."""
    folder = Path(os.environ.get("DOCKERCOMP_HOME") or "var") / "images"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.id").write_text(f"{identity}\n")
    print(name, tag, identity, flush=True)


def say(sentence: str) -> None:
    """One line of progress; stdout is for the ids."""
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
