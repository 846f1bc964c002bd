"""The main job in real client containers: one of them and the server are killed midway."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
from product import Product, running, until

from dockercomp.api import Server
from dockercomp.config import read_key
from dockercomp.failures import ServerUnavailable

PAIRS = 10_000
IN_A_CHUNK = 25


@pytest.mark.docker
@pytest.mark.mongo
def test_every_row_is_there_once_and_right_although_a_container_and_the_server_are_killed(
    engine: docker.DockerClient, built_image: Callable[[str], str], mongo_uri: str
) -> None:
    image = built_image("pairs")
    with running("--beat-seconds", "2", "--containers", "4", "--image", image) as product:
        server = Server(product.address, read_key(Path(product.env["DOCKERCOMP_KEY_FILE"])))
        until(lambda: live(server) >= 4, seconds=180, what="four containers that registered themselves")
        task = submit(product, server, image)
        deal = server.assign("sums")
        host = server.containers()[0]["host"]["id"]
        until(lambda: done(server, task) >= 60, seconds=90, what="some results")

        victim = our_containers(engine, host)[0]
        victim.kill("SIGKILL")
        until(lambda: done(server, task) >= 150, seconds=90, what="more results")
        os.kill(min(product.pids("gunicorn")), signal.SIGKILL)
        halfway = done(server, task)
        product.run("dockercomp", "watch", task)
        until(lambda: len(our_containers(engine, host)) == 4, seconds=30, what="the victim's successor")

        table = product.rows(task)
        left_over = [one.id for one in our_containers(engine, host)]

    assert len(deal["dealt"]) == 4 and not deal["remaining"]
    assert halfway < PAIRS // IN_A_CHUNK
    assert [row["answer"] for row in table] == [str(n + n * n) for n in range(PAIRS)]
    assert [row["row"] for row in table] == [str(n) for n in range(PAIRS)]
    assert {row["verdict"] for row in table} == {"accepted"} and {row["image"] for row in table} == {image}
    assert victim.id not in left_over
    assert not our_containers(engine, host, everything=True)


def submit(product: Product, server: Server, image: str) -> str:
    data = product.home / "pairs.csv"
    data.write_text("a,b\n" + "".join(f"{n},{n * n}\n" for n in range(PAIRS)))
    server.add_project("sums")
    job = ["python3", "/opt/job/add_pairs.py"]
    task = server.add_task("sums", job, image=image, rows_per_chunk=IN_A_CHUNK)
    server.upload(task, data)
    return task


def live(server: Server) -> int:
    return sum(one["state"] == "live" for one in server.containers())


def done(server: Server, task: str) -> int:
    try:
        return server.progress(task).done
    except ServerUnavailable:
        return 0


def our_containers(
    engine: docker.DockerClient, host: str, *, everything: bool = False
) -> list[docker.models.containers.Container]:
    """The client containers of this host's launcher; with `everything` also dead ones, and those of jobs."""
    labels = [f"dockercomp.host={host}", *([] if everything else ["dockercomp.kind=client"])]
    return engine.containers.list(all=everything, filters={"label": labels}, ignore_removed=True)
