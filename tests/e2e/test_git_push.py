"""A real `git push` to a bare repository with the hook: its matrix runs on three images, and reactions follow."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from parts import require
from product import Product
from repositories import Repository, git
from serving import Serving, server_for_containers

from dockercomp.api import Server
from dockercomp.config import read_key

pytestmark = [pytest.mark.docker, pytest.mark.mongo]

#: Prints the first line of a file of the tree, and fails when its environment says so.
READER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int count, char **given) {
  char path[512], block[512];
  snprintf(path, sizeof path, "%s/tree.tar", getenv("DOCKERCOMP_IN"));
  FILE *tree = fopen(path, "rb");
  if (!tree || count < 2) { perror(path); return 2; }
  while (fread(block, 512, 1, tree) == 1 && block[0]) {
    long size = strtol(block + 124, NULL, 8);
    if (!strcmp(block, given[1])) {
      char line[512] = "";
      if (!fgets(line, sizeof line, tree)) return 3;
      fputs(line, stdout);
      if (getenv("FAIL")) { fprintf(stderr, "test failed\n"); return 65; }
      return 0;
    }
    fseek(tree, (size + 511) / 512 * 512, SEEK_CUR);
  }
  fprintf(stderr, "no %s\n", given[1]);
  return 4;
}
"""

TEST = "import os; print(open('expected.txt').readline().strip(), os.environ['GIT_COMMIT'][:7])\n"

JOB_FILE = """
dockercomp: 1
name: matrix
main:
  action: [/reader, expected.txt]
  timeout: 1m
matrix:
  - {{name: c-one, image: "{one}", labels: {{language: C}}}}
  - {{name: c-two, image: "{two}", labels: {{language: C}}, env: {env}}}
  - name: python
    image: "{python}"
    action:
      - python3
      - -c
      - |
        import os, runpy, tarfile
        os.chdir("/tmp")
        tarfile.open(os.environ["DOCKERCOMP_IN"] + "/tree.tar").extractall()
        runpy.run_path("test.py")
    labels: {{language: Python}}
success: {{image: "{python}", action: [python3, -c, {say}]}}
failure: {{image: "{python}", action: [python3, -c, {say}]}}
after: {{image: "{python}", action: [python3, -c, "print('over')"]}}
"""
SAY = json.dumps("import json, sys; print('said', json.load(sys.stdin)['outcome'])")


@pytest.fixture(scope="module")
def product(engine: docker.DockerClient, mongod_binary: Path) -> Iterator[Product]:
    home = Path(tempfile.mkdtemp(prefix="dockercomp-push-"))
    settings = {"DOCKERCOMP_GIT_FROM": f"file://{home}/git/"}
    with server_for_containers(home, "--beat-seconds", "1", settings=settings) as product:
        yield product
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def volunteers(
    engine: docker.DockerClient, client_image: str, product: Product, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Two hosts with a sandboxed client container each."""
    key = (product.home / "volunteer.key").read_text()
    hosts = []
    for number in range(2):
        folder = tmp_path_factory.mktemp("host")
        one = Serving(engine, folder, server=product.address, image=client_image, key=key, number=number)
        one.policy(containers=1)
        one.self_test_passed()
        hosts.append(one)
    try:
        for one in hosts:
            one.start()
            one.registered(1)
        yield
    finally:
        for one in hosts:
            one.clean_up()


@pytest.fixture(scope="module")
def readers(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Ids of two images with nothing but a static C program in them."""
    compiler = shutil.which("gcc")
    if compiler is None:
        require("no C compiler (gcc) for the test's images")
    scratch = tmp_path_factory.mktemp("reader")
    (scratch / "reader.c").write_text(READER)
    made = []
    for optimised in ("-O0", "-O2"):
        subprocess.run(
            [compiler, "-static", optimised, "-w", "-o", scratch / "reader", scratch / "reader.c"], check=True
        )
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as archive:
            archive.add(scratch / "reader", "reader")
        tag = uuid.uuid4().hex[:12]
        labels = ["LABEL dockercomp.test=git-push"]
        engine.api.import_image_from_data(
            layer.getvalue(), repository="dockercomp-test/reader", tag=tag, changes=labels
        )
        made.append(str(engine.images.get(f"dockercomp-test/reader:{tag}").id))
    yield made
    for image in made:
        engine.images.remove(image, force=True)


@pytest.fixture(scope="module")
def repository(product: Product) -> Repository:
    """A bare repository with a receiver and its hook, set up as the how-to page says."""
    made = Repository(product.home / "git")
    product.run("dockercomp", "project", "tests")
    server = scientist(product)
    receiver = server.add_receiver("tests", "git", {"repository": made.url})
    hook = made.bare / "hooks" / "post-receive"
    hook.write_text(product.run("dockercomp", "receiver", "hook", receiver["id"]))
    hook.chmod(0o755)
    secret = made.bare / "dockercomp-secret"
    secret.write_text(receiver["secret"] + "\n")
    secret.chmod(0o600)
    return made


def scientist(product: Product) -> Server:
    return Server(product.address, read_key(product.home / "scientist.key"))


def pushed(repository: Repository, job_file: str) -> tuple[str, str]:
    """Commit the study with this job file and push it: the commit, and what the pusher was told."""
    files = {"dockercomp.yml": job_file, "expected.txt": "forty-two\n", "test.py": TEST}
    commit = repository.commit(files, push=False)
    return commit, repository.push()


def ended(product: Product, task: str, *, status: int) -> dict[str, Any]:
    """The task's record when it and its reactions are over."""
    product.run("dockercomp", "watch", task, status=status)
    return scientist(product).task(task)


def test_a_push_runs_its_matrix_on_three_images_and_reports_success_then_after(
    product: Product, volunteers: None, readers: list[str], client_image: str, repository: Repository
) -> None:
    job_file = JOB_FILE.format(one=readers[0], two=readers[1], python=client_image, env="{}", say=SAY)

    commit, told = pushed(repository, job_file)
    task = ended(product, commit, status=0)

    assert f"task {commit} runs; watch it with: dockercomp watch {commit}" in told
    rows = {row["variant"]: row for row in product.rows(commit)}
    assert {name: row["answer"] for name, row in rows.items()} == {
        "c-one": "forty-two",
        "c-two": "forty-two",
        "python": f"forty-two {commit[:7]}",
    }
    assert {name: row["image"] for name, row in rows.items()} == {
        "c-one": readers[0],
        "c-two": readers[1],
        "python": client_image,
    }
    success, after = task["reaction_runs"]
    assert (task["outcome"], success["reaction"], after["reaction"]) == ("succeeded", "success", "after")
    assert (success["answer"].strip(), after["answer"].strip()) == ("said succeeded", "over")
    assert success["ended"] <= after["started"]


def test_a_push_with_a_failing_entry_of_the_matrix_reports_failure_then_after(
    product: Product, volunteers: None, readers: list[str], client_image: str, repository: Repository
) -> None:
    env = '{FAIL: "1"}'
    job_file = JOB_FILE.format(one=readers[0], two=readers[1], python=client_image, env=env, say=SAY)

    commit, _ = pushed(repository, job_file)
    task = ended(product, commit, status=1)

    rows = {row["input.variant"]: row for row in product.rows(commit)}
    summed_up = product.run("dockercomp", "summary", commit, status=1).splitlines()
    assert [line.split() for line in summed_up if line.startswith("  c-")] == [
        ["c-one", "ok", "forty-two"],
        ["c-two", "failed"],
    ]
    assert "      | test failed" in summed_up, summed_up
    assert "      | forty-two" in summed_up, "what it said on stdout, too"
    assert rows["c-one"]["answer"] == "forty-two" and rows["c-two"]["answer"] == ""
    failure, after = task["reaction_runs"]
    assert (task["outcome"], failure["reaction"], after["reaction"]) == ("failed", "failure", "after")
    assert (failure["answer"].strip(), after["answer"].strip()) == ("said failed", "over")
    assert failure["ended"] <= after["started"]
    assert git("rev-parse", "main", cwd=repository.bare) == commit
