"""The digits example without scikit-learn: its grid, what it refuses, how two tables are compared."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

DIGITS = Path(__file__).parents[2] / "images" / "examples" / "digits"

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """One of the example's programs as a module: they lie beside each other, in no package."""
    monkeypatch.syspath_prepend(str(DIGITS))
    return importlib.import_module


def fit(stdin: str) -> subprocess.CompletedProcess[str]:
    """Run the job's program on one chunk."""
    return subprocess.run([sys.executable, DIGITS / "fit.py"], input=stdin, capture_output=True, text=True)


def exported(name: str, cost: str, answer: str, state: str = "done") -> str:
    """A line of a table of results, cut down to what best.py reads."""
    quoted = '"' + answer.replace('"', '""') + '"'
    return f"{name},{cost},,,,,,,,{quoted},0,{state}"


HEADER = "model,C,gamma,neighbors,weights,p,depth,criterion,leaf"
FIGURES = '{"accuracy_mean": 0.9583053221288516, "accuracy_std": 0.01}'


def test_the_grid_has_no_setting_twice_and_four_models(load: Load) -> None:
    grid = load("make_grid")

    settings = [tuple(setting.items()) for setting in grid.settings()]

    assert len(set(settings)) == len(settings) >= 200
    assert Counter(setting[0][1] for setting in settings) == {
        "svc": 117,
        "knn": 48,
        "logistic": 9,
        "tree": 36,
    }
    assert {name for setting in settings for name, _ in setting} == set(grid.COLUMNS)


def test_make_grid_writes_a_header_and_a_line_for_each_setting(load: Load) -> None:
    done = subprocess.run([sys.executable, DIGITS / "make_grid.py"], capture_output=True, text=True)

    lines = done.stdout.splitlines()
    assert (lines[0], lines[1], lines[-1]) == (HEADER, "svc,0.03,0.001,,,,,,", "tree,,,,,,16,entropy,4")
    assert len(lines) == 1 + len(list(load("make_grid").settings()))


@pytest.mark.parametrize(
    ("chunk", "complaint"),
    [
        ("", "the setting is not JSON"),
        ("[1]", "the setting is not an object"),
        ("{}", "there is no model None; there are svc, knn, logistic, tree"),
        ('{"model": ["svc"]}', "there is no model ['svc']"),
        ('{"model": "svc", "C": "1"}', "svc needs a value for gamma"),
        ('{"model": "svc", "C": "one", "gamma": "1"}', "C must be a number, not 'one'"),
        ('{"model": "tree", "depth": "2.5", "leaf": "1"}', "depth must be a whole number, not '2.5'"),
        ('{"model": "knn", "neighbors": "3", "p": "2", "weights": ""}', "knn needs a value for weights"),
    ],
)
def test_a_setting_that_cannot_be_tried_is_bad_data(chunk: str, complaint: str) -> None:
    done = fit(chunk)

    assert (done.returncode, done.stdout) == (65, "")
    assert done.stderr.startswith(complaint) and done.stderr.count("\n") == 1


def test_a_table_is_the_reference_only_if_every_figure_is_the_same_float(load: Load) -> None:
    best = load("best")
    results = best.read_results(
        [f"{HEADER},answer,row,state", exported("svc", "1", FIGURES), exported("svc", "3", FIGURES)]
    )

    def reference(*lines: str) -> list[str]:
        rows = best.read_reference([f"{HEADER},accuracy_mean,accuracy_std", *lines])
        return best.differences(results, rows)

    one, three = "svc,1,,,,,,,,0.9583053221288516,0.01", "svc,3,,,,,,,,0.9583053221288516,0.01"
    assert reference(one, three) == []
    assert reference(one, three.replace("516,", "517,")) == ["svc      C=3"]
    assert reference(one) == ["svc      C=3"]
    assert reference(one, three, three.replace(",3,", ",9,")) == ["svc      C=9"]


def test_the_best_settings_are_shown_first(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    best = load("best")

    best.show_best({"a": (0.5, 0.25), "b": (0.75, 0.0), "c": (0.75, 0.5), "d": (0.25, 0.0)}, 3)

    shown = capsys.readouterr().out.splitlines()[1:]
    assert shown == ["0.7500  0.0000  b", "0.7500  0.5000  c", "0.5000  0.2500  a"]


def test_a_table_with_a_row_not_done_yet_is_not_summed_up(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    lines = [f"{HEADER},answer,row,state", exported("svc", "1", FIGURES), exported("svc", "3", "", "ready")]
    table.write_text("\n".join(lines))

    done = subprocess.run([sys.executable, DIGITS / "best.py", table], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Row 0 has no answer: it is ready.\n"
