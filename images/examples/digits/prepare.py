"""Runs once inside the image, while it is built: lets Python find the packages, and compiles them."""

import compileall
import site
from pathlib import Path

LIBRARY = "/opt/job/lib"


def main() -> None:
    # A path file and not PYTHONPATH: jobs get a clean environment, and the client's own packages keep coming first.
    packages = Path(site.getsitepackages()[0])
    packages.mkdir(parents=True, exist_ok=True)
    (packages / "job.pth").write_text(f"{LIBRARY}\n")
    # Every chunk is a process of its own, and the root is read-only: without bytecode each one would compile
    # what it imports, which takes three times as long as all the rest.
    compileall.compile_dir(LIBRARY, quiet=1, workers=0)


main()
