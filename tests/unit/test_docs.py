"""The documentation keeps its promises: settings, commands, endpoints, columns, documents, dependencies, links.

Run as a program, this file writes docs/reference/commands.md anew: python tests/unit/test_docs.py
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PROGRAMS = ("source_server", "client_container", "dockercomp")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


# --- settings


def test_the_settings_page_names_exactly_the_variables_that_the_code_knows() -> None:
    known = {name for program in (*PROGRAMS, "scripts") for name in _variables(ROOT / program)}

    described = {row[0].strip("`") for row in _rows("settings.md") if row[0].startswith("`DOCKERCOMP_")}

    assert described == known


@pytest.mark.parametrize("program", ["source_server", "client_container"])
def test_defaults_and_ranges_of_numbers_on_the_settings_page_are_those_of_the_code(
    program: str, tmp_path: Path
) -> None:
    section = {"source_server": "Source server", "client_container": "Client"}[program]
    numeric = [row for row in _rows("settings.md", section) if re.fullmatch(r"[\d.]+ to [\d.]+", row[2])]
    assert numeric

    for name, default, interval, _ in numeric:
        low, high = map(float, interval.split(" to "))
        variable = name.strip("`")
        plain, least = _setting(program, variable, None, tmp_path), _setting(program, variable, low, tmp_path)
        assert plain == _setting(program, variable, float(default), tmp_path), f"default of {variable}"
        assert plain != least or float(default) == low
        _setting(program, variable, high, tmp_path)
        for beyond in (low - 0.01, high * 1.001):
            with pytest.raises(ValueError, match=variable):
                _setting(program, variable, beyond, tmp_path)


def _variables(folder: Path) -> Iterator[str]:
    """Every variable that a string (not a comment) in a Python file below `folder` names."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from re.findall(r"\bDOCKERCOMP_[A-Z_]*[A-Z]\b", node.value)


def _setting(program: str, variable: str, value: float | None, folder: Path) -> Any:
    """All settings as read when the variable has this value (None: is not set), less what cannot be compared."""
    (folder / "key").write_text("a-key")
    env = {"DOCKERCOMP_KEY_FILE": str(folder / "key")}
    if value is not None:
        env[variable] = f"{value:.10g}"
    if program == "source_server":
        from source_server.config import from_env as read_server

        return read_server(env)
    from client_container.config import from_env as read_client

    return read_client(env)


# --- commands


def test_the_commands_page_is_what_the_commands_say_of_themselves() -> None:
    page = (REFERENCE / "commands.md").read_text()

    assert page == commands_page(), "write it anew: python tests/unit/test_docs.py"


def test_every_option_and_command_shown_in_the_docs_exists() -> None:
    commands = {" ".join(path): command for path, command in _all_commands()}

    shown = [(page.name, line) for page in PAGES for line in _shown_commands(page)]

    assert len(shown) > 20
    for name, line in shown:
        words = line.split(" -- ")[0].split()
        command = _longest(commands, words)
        known = {option for parameter in command.params for option in parameter.opts}
        options = {word for word in words if re.fullmatch(r"--[a-z][a-z-]*", word)}
        assert options <= known | {"--help"}, f"{name}: {line}"


def _shown_commands(page: Path) -> Iterator[str]:
    """Each command line of ours in the console blocks of a page, those inside $(...) by themselves."""
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
        for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
            pieces = []
            while inner := re.search(r"\$\(([^()]*)\)", line):
                pieces.append(inner[1])
                line = line.replace(inner[0], "X")
            for piece in (*pieces, line):
                if re.match(r"dockercomp(-\w+)? ", piece):
                    yield re.split(r"\s[|#&]", piece)[0]


def commands_page() -> str:
    """docs/reference/commands.md, from the commands' own help."""
    parts = [
        "# Commands\n\n*For everybody, to look things up.* Written by `python tests/unit/test_docs.py` "
        "from each command's `--help`. A command that\ncannot do what it was asked ends with one sentence and exit "
        "code 2. Settings from the environment: [settings](settings.md).\n"
    ]
    contexts: dict[str, click.Context] = {}
    for path, command in _all_commands():
        name = " ".join(path)
        # With its parents, as when it is called: they decide how help is asked for.
        parent = contexts.get(" ".join(path[:-1]))
        context = contexts[name] = click.Context(
            command, info_name=path[-1], parent=parent, terminal_width=80, **command.context_settings
        )
        parts.append(
            f"\n{'#' * min(2 + (len(path) > 1), 3)} {name}\n\n```text\n{command.get_help(context)}\n```\n"
        )
    return "".join(parts)


def _all_commands() -> Iterator[tuple[list[str], click.Command]]:
    from client_container.__main__ import main as client
    from client_container.launcher.cli import main as launcher
    from client_container.launcher.volunteer.cli import main as volunteer
    from dockercomp.cli import main as scientist
    from source_server.cli import main as server

    yield from _tree(["dockercomp"], scientist)
    yield from _tree(["dockercomp-server"], server)
    yield from _tree(["dockercomp-volunteer"], volunteer)
    yield from _tree(["dockercomp-launcher"], launcher)
    yield from _tree(["dockercomp-client"], client)


def _tree(path: list[str], command: click.Command) -> Iterator[tuple[list[str], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _tree([*path, name], command.commands[name])


def _longest(commands: dict[str, click.Command], words: list[str]) -> click.Command:
    """The command that these words begin with; a group must be followed by one of its commands, or by nothing."""
    count = max(n for n in range(len(words) + 1) if n == 0 or " ".join(words[:n]) in commands)
    assert count, f"there is no command {words[0]}"
    command = commands[" ".join(words[:count])]
    assert not (isinstance(command, click.Group) and words[count:]), f"there is no command {' '.join(words)}"
    return command


# --- HTTP


def test_every_endpoint_is_described_and_every_described_endpoint_exists() -> None:
    described = _described("reference/http.md") | _described("protocol.md")

    assert described == set(_endpoints())


def _described(page: str) -> set[str]:
    text = (ROOT / "docs" / page).read_text()
    spoken = re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^\s`?]*)", text)
    return {re.sub(r"/[A-Z][A-Z0-9]*(?=[/.]|$)", "/*", one) for one in spoken}


def _endpoints() -> Iterator[str]:
    from flask import Blueprint, Flask

    import source_server.web.views
    from source_server.web.openapi_document import routes

    app = Flask("source_server", static_folder=None)
    for module in pkgutil.iter_modules(source_server.web.views.__path__, "source_server.web.views."):
        blueprint = getattr(importlib.import_module(module.name), "blueprint", None)
        if isinstance(blueprint, Blueprint):
            app.register_blueprint(blueprint)
    for one in routes(app):
        yield f"{one.method} {re.sub(r'{[^}]+}', '*', one.path)}"
    # The app itself has one more; making the app takes a database.
    for method, path in re.findall(
        r'@app\.(get|post)\("([^"]+)"\)', (ROOT / "source_server/app.py").read_text()
    ):
        yield f"{method.upper()} {path}"


# --- results.csv, documents, dependencies


def test_the_columns_of_the_results_are_described_in_their_order() -> None:
    from source_server.services.results.csv_table import columns

    described = [
        name for row in _rows("results-csv.md")[1:] for name in re.findall(r"`(\w+)`", row[0]) or [row[0]]
    ]

    assert described == columns(["*your fields*"])


def test_every_stored_field_and_every_index_is_described() -> None:
    from source_server.domain.chunk import Chunk, Failure, Lease
    from source_server.domain.container import Container
    from source_server.domain.enrolment import Doors, Enrolment, EnrolmentKey
    from source_server.domain.image import StoredImage
    from source_server.domain.job import Job
    from source_server.domain.receiver import Event, Receiver
    from source_server.domain.task import Task, Upload
    from source_server.stores.deals import Deal

    words = set(re.findall(r"\w+", (REFERENCE / "documents.md").read_text()))
    stores = "".join(path.read_text() for path in (ROOT / "source_server/stores").glob("*.py"))

    shapes = (
        Chunk,
        Lease,
        Failure,
        Container,
        Task,
        Job,
        Upload,
        Deal,
        Doors,
        Enrolment,
        EnrolmentKey,
        StoredImage,
        Receiver,
        Event,
    )
    stored = {field.name for shape in shapes for field in fields(shape)}
    collections = set(re.findall(r'Gate\(database, "(\w+)"\)', stores)) | {"results", "errors"}
    indexes = set(re.findall(r'\.index\(.*?name="(\w+)"', stores))

    assert stored - {"id"} <= words
    assert collections <= words
    assert len(indexes) > 8
    assert indexes <= words


def test_every_direct_dependency_has_its_line_of_why() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[<>=;\[ ]", requirement)[0].lower() for requirement in wanted}

    page = ROOT / "docs/explanation/dependencies.md"
    explained = {name for row in _rows_of(page.read_text()) for name in re.findall(r"`([\w.-]+)`", row[0])}

    assert explained == names


# --- pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_another_page_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)

    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name) if name else page
        assert place.exists(), f"{target} is not there"
        assert not anchor or anchor in _anchors(place), f"{target} is no heading"


@pytest.mark.parametrize("name", ["how-to", "reference", "explanation", "explanation/decisions", "tutorial"])
def test_every_page_is_in_the_index_and_says_whom_it_is_for(name: str) -> None:
    index = (ROOT / "docs" / "README.md").read_text()

    for page in sorted((ROOT / "docs" / name).glob("*.md")):
        assert f"({name}/{page.name})" in index, f"{page.name} is missing in docs/README.md"
        beginning = "\n".join(page.read_text().splitlines()[:8])
        assert re.search(r"\b(For|for) \w+", beginning), f"{page.name} does not say whom it is for"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _rows(page: str, section: str | None = None) -> list[list[str]]:
    """The rows of all tables of a reference page, or of one section of it, as lists of cells."""
    text = (REFERENCE / page).read_text()
    if section is not None:
        text = text.split(f"\n## {section}", 1)[1].split("\n## ", 1)[0]
    return list(_rows_of(text))


def _rows_of(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


if __name__ == "__main__":
    (REFERENCE / "commands.md").write_text(commands_page())
