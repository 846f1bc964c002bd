"""What scripts/quickstart does once Python and the packages are there. Everything goes through the public commands."""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

from dockercomp.api import Progress, Server
from dockercomp.config import read_key
from dockercomp.failures import DockercompError, ServerUnavailable

REPOSITORY = Path(__file__).resolve().parents[2]
ADD_PAIRS = REPOSITORY / "images" / "examples" / "pairs" / "add_pairs.py"
CLIENTS = 4
CLIENTS_WITHIN_S = 180  #: how long they may take to start and register; a self-test comes first
JOB_UID = 729999  #: whom the client's process runtime runs jobs as when it is root itself
IMAGE = "pairs"
PROJECT = "quickstart"


class CannotGoOn(Exception):
    """The quickstart cannot go on; the message is one sentence."""


def main() -> None:
    """Run it; 0 when every answer is right, 1 when not, 2 with a sentence when it cannot go on."""
    sys.stdout.reconfigure(line_buffering=True)  # in step with what commands say on stderr
    options = read_options()
    home = Path(os.environ.get("DOCKERCOMP_HOME") or REPOSITORY / "var").absolute()
    os.environ["DOCKERCOMP_HOME"] = str(home)
    try:
        sys.exit(0 if quickstart(options, home) else 1)
    except (CannotGoOn, DockercompError) as error:
        print(f"quickstart: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nInterrupted. What runs goes on; stop it with: dockercomp-server down", file=sys.stderr)
        sys.exit(130)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/quickstart",
        description="Start everything on this machine, add up 50,000 pairs of numbers on four clients, check the sums.",
        epilog="A second run uses what runs already. Stop it with: dockercomp-server down",
    )
    parser.add_argument("--no-docker", action="store_true", help="clients are plain processes, engine or not")
    parser.add_argument("--pairs", type=int, default=50_000, help="rows of work (default: %(default)s)")
    parser.add_argument("--pairs-per-chunk", type=int, default=250, help="default: %(default)s")
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / "results.csv", help="default: results.csv"
    )
    parser.add_argument(
        "--bind", default="127.0.0.1:8765", help="where the server listens (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.pairs < 1 or options.pairs_per_chunk < 1:
        parser.error("--pairs and --pairs-per-chunk must be at least 1")
    return options


def quickstart(options: argparse.Namespace, home: Path) -> bool:
    """Start, submit, watch, fetch, check; whether every answer is right."""
    address, expected = start_server(options, home)
    key_file = make_scientist(home)
    server = Server(address, read_key(key_file))
    image = job_image(home) if await_clients(server, home, containers=expected) else None
    data = write_pairs(home / "quickstart" / "pairs.csv", options.pairs)
    job = ["python3", "/opt/job/add_pairs.py"] if image else [literal(item) for item in process_job()]
    server.add_project(PROJECT)
    task = server.add_task(
        PROJECT, job, name="sums of pairs", image=image, rows_per_chunk=options.pairs_per_chunk
    )
    server.upload(task, data)
    dealt = server.assign(PROJECT)["dealt"]
    print(f"{options.pairs} pairs in chunks of {options.pairs_per_chunk}, dealt to {len(dealt)} clients.")
    watch(server, task, options.pairs_per_chunk)
    server.download_results(options.output, task=task)
    right = check(options.output, options.pairs)
    tell(address, key_file, data, options.output, home)
    return right


def start_server(options: argparse.Namespace, home: Path) -> tuple[str, bool]:
    """The address of the server that runs already, or is started now; whether containers were just asked for."""
    running = run("dockercomp-server", "status")
    if "answers on" in running:
        address = running.split("answers on ")[1].strip().rstrip(".")
        print(f"The source server runs already on {address}; using it.")
        return address, False
    clients = client_options(options, home)
    print("Starting MongoDB, the source server, housekeeping and the clients ...")
    print(run("dockercomp-server", "up", "--detach", "--bind", options.bind, *clients).strip())
    return f"http://{options.bind}", "--containers" in clients


def client_options(options: argparse.Namespace, home: Path) -> list[str]:
    """How the server's own clients are to run: as containers where an engine answers, else as processes."""
    why = "as asked" if options.no_docker else why_no_containers(home)
    if why is None:
        print(f"Clients: {CLIENTS} containers on this machine's Docker engine, each job in a sandbox.")
        return ["--containers", str(CLIENTS)]
    print(f"Clients: {CLIENTS} plain processes, without a sandbox ({why}).")
    return ["--processes", str(CLIENTS), "--allow", json.dumps([process_job()])]


def process_job() -> list[str]:
    """The command for plain processes: the program's text itself, since as root jobs run as a user of no rights."""
    return [python_for_jobs(), "-c", ADD_PAIRS.read_text()]


def literal(item: str) -> str:
    """An action's item without placeholders."""
    return item.replace("{", "{{").replace("}", "}}")


def python_for_jobs() -> str:
    """An interpreter that the user whom jobs run as can start."""
    runs_as = {"user": JOB_UID, "group": JOB_UID, "extra_groups": []} if os.geteuid() == 0 else {}
    for python in ("/usr/bin/python3", "/usr/local/bin/python3", os.path.realpath(sys.executable)):
        try:
            subprocess.run([python, "-c", ""], check=True, cwd="/", capture_output=True, **runs_as)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    raise CannotGoOn("no Python on this machine can be started by a user other than root: install python3")


def why_no_containers(home: Path) -> str | None:
    """None when an engine answers and has the images, else the reason in words."""
    if os.geteuid() != 0:
        return "containers of the server's own take root"
    engine = subprocess.run(["dockercomp-launcher", "gateway"], capture_output=True, text=True)
    if engine.returncode != 0:
        return sentence(engine.stderr)
    print("Building the client's image (once) ...")
    built = subprocess.run(
        [str(REPOSITORY / "scripts" / "build-images"), "client", "pairs"], stdout=sys.stderr
    )
    if built.returncode != 0:
        return "its image could not be built, see above"
    able = ["--image", "dockercomp/client", "--jobs-in", str(home / "built-in")]
    asked = subprocess.run(["dockercomp-launcher", "gateway", *able], capture_output=True, text=True)
    return None if asked.returncode == 0 else sentence(asked.stderr)


def job_image(home: Path) -> str:
    """The id of the image that the jobs run in; scripts/build-images has written it down."""
    try:
        return (home / "images" / f"{IMAGE}.id").read_text().strip()
    except OSError as error:
        raise CannotGoOn(f"the image of the jobs is not there: run scripts/build-images {IMAGE}") from error


def make_scientist(home: Path) -> Path:
    """An account to submit with; the file that holds its key."""
    key_file = home / "keys" / "scientist.key"
    run("dockercomp-server", "account", "add", "quickstart", "--role", "scientist", "--key-file", str(key_file),
        "--if-missing")  # fmt: skip
    return key_file


def await_clients(server: Server, home: Path, *, containers: bool) -> bool:
    """Wait until the clients have registered; whether they put jobs into sandboxes.

    `containers`: that is what was just asked for, and it takes a self-test first.
    """
    deadline = time.monotonic() + CLIENTS_WITHIN_S
    while True:
        live = [one for one in server.containers() if one["state"] == "live"]
        sandboxes = [one for one in live if "sandbox" in one["runtimes"]]
        counted = sandboxes if containers or len(sandboxes) >= CLIENTS else live
        if len(counted) >= CLIENTS:
            print(f"{len(counted)} clients have registered.")
            return counted is sandboxes
        if time.monotonic() > deadline:
            found = (
                f"; dockercomp-volunteer --etc {home / 'built-in' / 'etc'} self-test" if containers else ""
            )
            raise CannotGoOn(
                f"only {len(counted)} of {CLIENTS} clients registered within {CLIENTS_WITHIN_S} s; "
                f"see var/server/up.log{found}"
            )
        time.sleep(0.2)


def write_pairs(path: Path, count: int) -> Path:
    """The numbers 1, 2, 3, ... two to a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["a", "b"])
        rows.writerows((2 * n + 1, 2 * n + 2) for n in range(count))
    return path


def watch(server: Server, task: str, pairs_per_chunk: int) -> None:
    """A bar with rate and time left, until the task is complete."""
    progress = server.progress(task)
    seldom = 0.25 if sys.stderr.isatty() else 5.0
    with tqdm(total=progress.total * pairs_per_chunk, unit=" pairs", mininterval=seldom) as bar:
        while True:
            bar.update((progress.done + progress.failed) * pairs_per_chunk - bar.n)
            if progress.ended:
                break
            time.sleep(0.25)
            progress = patiently(server, task, progress)
    if progress.outcome != "succeeded":
        first = next(server.errors(task), {"signature": "no error is kept", "stderr_tail": ""})
        raise CannotGoOn(f"the task {progress.outcome}: {first['signature']} {first['stderr_tail']}".strip())


def patiently(server: Server, task: str, last: Progress) -> Progress:
    """The task's progress, or the last one while the server does not answer."""
    try:
        return server.progress(task)
    except ServerUnavailable:
        return last


def check(table: Path, count: int) -> bool:
    """Compare the table with what is known without computing the pairs: row by row, and Gauss for the total."""
    wrong = total = rows = 0
    with table.open(newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines)):
            rows += 1
            total += int(row["answer"] or 0)
            wrong += row["row"] != str(number) or row["answer"] != str(4 * number + 3)
    numbers = 2 * count
    expected = numbers * (numbers + 1) // 2
    right = wrong == 0 and rows == count and total == expected
    print(f"{rows} rows, {wrong} wrong; total {total}, expected 1 + 2 + ... + {numbers} = {expected}: "
          f"{'all right' if right else 'WRONG'}.")  # fmt: skip
    return right


def tell(address: str, key_file: Path, data: Path, table: Path, home: Path) -> None:
    """Where everything is, and how to go on and to stop."""
    venv = Path(sys.executable).parent
    print(f"""
Results    {table}
Input      {data}
Server     {address}   (log {home / "server" / "up.log"})
State      {home}
Your key   {key_file}

To go on:  export PATH={venv}:$PATH DOCKERCOMP_HOME={home} DOCKERCOMP_SERVER={address} DOCKERCOMP_KEY_FILE={key_file}
           dockercomp status
To stop:   dockercomp-server down      (here and now: DOCKERCOMP_HOME={home} {venv / "dockercomp-server"} down)
To remove: stop it, then delete {home}""")


def run(*argv: str) -> str:
    """The standard output of a command that must succeed; raises CannotGoOn with its sentence."""
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        raise CannotGoOn(sentence(done.stderr))
    return done.stdout


def sentence(stderr: str) -> str:
    """The last line of what a command said on stderr."""
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    return lines[-1].removeprefix("Error: ").rstrip(".") if lines else "a command failed without a word"


if __name__ == "__main__":
    main()
