"""The Docker engine: reaching it, and what every part of the launcher asks of it. All errors become a sentence."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import docker
import docker.errors
import requests

from client_container.launcher.errors import EngineAway, EngineError, EngineTooOld, ImageMissing

LEAST_ENGINE = "20.10"
LEAST_RUNC = "1.1.12"  #: the first without CVE-2024-21626, a way out of any container


class Engine:
    """The engine that the environment points to (DOCKER_HOST, else the local socket); raises EngineAway."""

    def __init__(self) -> None:
        with translated():
            self._api = docker.DockerClient.from_env(timeout=60, max_pool_size=32).api
            info = self._api.info()
            self._processors, self._version = int(info["NCPU"]), str(info["ServerVersion"])

    @property
    def processors(self) -> int:
        """How many processors the engine's machine has."""
        return self._processors

    @property
    def version(self) -> str:
        """The engine's version when this object was made."""
        return self._version

    def check(self) -> None:
        """Ask which versions answer now, which may be others than before; raises EngineTooOld and EngineAway."""
        with translated():
            components = self._api.version(api_version=False).get("Components") or []
        if sentence := too_old(components):
            raise EngineTooOld(sentence)

    @property
    def gateway(self) -> str:
        """The address under which containers on the default bridge reach this machine; raises EngineError."""
        with translated():
            networks = self._api.inspect_network("bridge")["IPAM"]["Config"] or []
        for network in networks:
            if network.get("Gateway"):
                return str(network["Gateway"])
            if network.get("Subnet"):  # an engine just started tells no more; it takes the first address
                return str(next(ipaddress.ip_network(network["Subnet"]).hosts()))
        raise EngineError("The Docker engine has no default bridge, so containers cannot reach this machine.")

    def image_id(self, name: str) -> str:
        """The id (sha256:...) of an image given by name or id; raises ImageMissing."""
        with translated():
            try:
                return str(self._api.inspect_image(name)["Id"])  # type: ignore[no-untyped-call]
            except (docker.errors.ImageNotFound, docker.errors.NullResource):
                raise ImageMissing(
                    f"Image {name!r} is not on this machine: build it with scripts/build-images or pull it."
                ) from None

    def find_network(self, name: str) -> dict[str, Any] | None:
        """What the engine says about the network of that very name (GET /networks/NAME), or None."""
        with translated():
            for entry in self._api.networks(names=[name]):
                if entry["Name"] == name:  # the engine's filter is satisfied with a part of it
                    return dict(self._api.inspect_network(entry["Id"]))
        return None

    def create_network(self, config: dict[str, Any]) -> None:
        """Make a network from the keys of POST /networks/create."""
        with translated():
            self._api.create_network(
                config["Name"],
                driver=config["Driver"],
                options=config["Options"],
                labels=config["Labels"],
                enable_ipv6=config["EnableIPv6"],
                attachable=config["Attachable"],
                check_duplicate=config["CheckDuplicate"],
            )

    def remove_network(self, network_id: str) -> None:
        """Remove a network that no container is on."""
        with translated():
            self._api.remove_network(network_id)


def too_old(components: Iterable[Mapping[str, Any]]) -> str:
    """Why the parts of an engine ("Name" and "Version" each) do not hold jobs in; empty if they do. Pure.

    Distributions mend old versions, as 1.1.5+ds1-1+deb12u1: which of their suffixes has which fix nobody can tell
    from here, so such a runc passes. So does an engine that does not say what its runc is; the self-test tries it.
    """
    versions = {str(one.get("Name")): str(one.get("Version")) for one in components}
    engine, runc = versions.get("Engine", ""), versions.get("runc", "")
    if _number(engine) < _number(LEAST_ENGINE):
        return f"The Docker engine here is {engine or 'of an unknown version'}; jobs need {LEAST_ENGINE} or later."
    if _number(runc) and _number(runc) < _number(LEAST_RUNC) and not _DISTRIBUTIONS.search(runc):
        return (
            f"The Docker engine's runc is {runc}, out of which programs can break (CVE-2024-21626); "
            f"jobs need {LEAST_RUNC} or later: update Docker."
        )
    return ""


_DISTRIBUTIONS = re.compile(r"[+~-](ds|dfsg|deb|[0-9])|ubuntu|\.(el|fc|amzn)[0-9]", re.ASCII)


def _number(version: str) -> list[int]:
    """The numbers that a version starts with; none if it starts with something else."""
    start = re.match(r"[0-9]+(\.[0-9]+)*", version, re.ASCII)
    return [int(one) for one in start[0].split(".")] if start else []


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn whatever the SDK raises into an EngineError with one sentence."""
    try:
        yield
    except docker.errors.APIError as error:
        raise EngineError(f"The Docker engine refused: {error.explanation or error}") from error
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise EngineAway(
            f"No Docker engine answers: is one running, and may this user talk to it? ({_innermost(error)})"
        ) from error


def _innermost(error: BaseException) -> str:
    """The last cause of an error, which alone says something to a person."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__
