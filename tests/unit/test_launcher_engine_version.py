"""Engines with known holes are not lent: which ones, and what follows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from client_container.launcher.engine import too_old
from client_container.launcher.errors import EngineTooOld
from client_container.launcher.policy.file import render_policy
from client_container.launcher.policy.policy import default_policy
from client_container.launcher.service.installation import read_installation
from client_container.launcher.service.serve import make_service
from client_container.launcher.service.service import Service
from client_container.launcher.state import StateFolder


def engine(version: str, runc: str | None) -> list[dict[str, str]]:
    made = [{"Name": "Engine", "Version": version}, {"Name": "containerd", "Version": "1.6.20~ds1"}]
    return made if runc is None else [*made, {"Name": "runc", "Version": runc}]


@pytest.mark.parametrize(
    ("version", "runc"),
    [
        ("20.10.24+dfsg1", "1.1.5+ds1"),  # Debian 12
        ("20.10.5+dfsg1", "1.0.0~rc93+ds1"),
        ("24.0.5", "1.1.7-0ubuntu1~22.04.2"),
        ("25.0.3", "1.1.12"),
        ("28.2.2", "1.2.5"),
        ("20.10", "2"),
        ("28.2.2", None),
        ("28.2.2", ""),
    ],
)
def test_a_mended_engine_is_good_enough(version: str, runc: str | None) -> None:
    assert too_old(engine(version, runc)) == ""


@pytest.mark.parametrize("version", ["19.03.15", "18.09.1+dfsg1", "1.13.1", "", "dev"])
def test_an_old_engine_is_named(version: str) -> None:
    assert too_old(engine(version, "1.2.5")).startswith("The Docker engine here is ")
    assert too_old([])


@pytest.mark.parametrize("runc", ["1.1.11", "1.0.0-rc93", "1.1.5+dev", "1.1.5", "1.0.0-rc10+dev"])
def test_a_runc_that_programs_break_out_of_is_named(runc: str) -> None:
    assert f"runc is {runc}, " in too_old(engine("25.0.0", runc))


class Ageing:
    """An engine whose version is what `sentence` says of it; of the rest there is nothing, as nothing may be asked."""

    def __init__(self) -> None:
        self.sentence, self.obeyed = "", 0

    def check(self) -> None:
        if self.sentence:
            raise EngineTooOld(self.sentence)

    def thaw(self) -> None:
        self.obeyed += 1


@pytest.fixture
def service(tmp_path: Path) -> Service:
    facts = {"instance": "default", "server": "https://s.example", "image": "x", "first_uid": 730000}
    (tmp_path / "launcher.json").write_text(json.dumps({**facts, "home": str(tmp_path)}))
    (tmp_path / "policy.toml").write_text(render_policy(default_policy(2, 2**32, 2**36)))
    (tmp_path / "account.key").write_text("key")
    return make_service(read_installation(tmp_path), StateFolder(tmp_path / "launcher", "default"), tmp_path)


def test_with_an_engine_that_comes_back_too_old_nothing_is_started_and_status_says_why(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = Ageing()
    service.crew = SimpleNamespace(engine=engine, jobs=engine)  # type: ignore[assignment]
    converged: list[Any] = []
    monkeypatch.setattr(service, "_converge", converged.append)
    monkeypatch.setattr(service, "_tend", lambda _crew: None)
    service.step()
    assert len(converged) == 1

    service.engine_problem, engine.sentence = "No Docker engine answers.", "The engine is too old."
    for _ in range(2):
        with pytest.raises(EngineTooOld):
            service.step()

    assert len(converged) == 1
    assert service.gate() == service.engine_problem == "The engine is too old."
    engine.sentence = ""
    service.step()
    assert len(converged) == 2
    assert service.engine_problem is None
    assert service.gate() != "The engine is too old."
