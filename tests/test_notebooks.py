"""Committed notebooks obey every guard, the course's names are in all five places, and each guard can fail."""

import functools
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course_lib.paths import repo_root
from course_lib.start_here import CHAPTERS
from tests import notebook_guards as guards
from tests.test_checks import CHECKS
from tools import execute, readme_table

ROOT = repo_root()
PLACES = ("notebooks", "exercises", "solutions")
PATHS = [path for place in PLACES for path in sorted((ROOT / place).glob("*.ipynb"))]
MAX_BYTES = 6 * 2**20


@functools.cache
def read(path):
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize(
    ("path", "guard"),
    [
        pytest.param(path, guard, id=f"{path.parent.name}/{path.name}-{guard.__name__}")
        for path in PATHS
        for guard in guards.GUARDS[path.parent.name]
    ],
)
def test_notebook_obeys(path, guard):
    assert list(guard(read(path), path.parent.name)) == []


@pytest.mark.parametrize("path", PATHS, ids=[f"{path.parent.name}/{path.name}" for path in PATHS])
def test_notebook_is_small_valid_and_named_after_a_chapter(path):
    nbformat.validate(read(path))
    assert path.stat().st_size <= MAX_BYTES
    assert path.stem in {chapter.stem for chapter in CHAPTERS}


def where(chapter):
    """In which of the five places a chapter is."""
    found = {place for place in PLACES if (ROOT / place / f"{chapter.stem}.ipynb").is_file()}
    code = ROOT / "course_lib"
    if (code / f"{chapter.name}.py").is_file() or (code / chapter.name / "__init__.py").is_file():
        found.add("course_lib")
    if (ROOT / "tests" / f"test_{chapter.name}.py").is_file():
        found.add("tests")
    return found


@pytest.mark.parametrize("chapter", CHAPTERS, ids=[chapter.stem for chapter in CHAPTERS])
def test_chapter_is_in_all_five_places_or_in_none(chapter):
    assert where(chapter) in (set(), {*PLACES, "course_lib", "tests"})


@pytest.mark.parametrize("name", CHECKS)
def test_check_is_used_in_its_chapters_solution_under_its_number(name):
    module, _, exercise = name.partition(".")
    (chapter,) = [chapter for chapter in CHAPTERS if chapter.name == module]
    sources = "\n".join(cell.source for cell in read(ROOT / "solutions" / f"{chapter.stem}.ipynb").cells)
    number = CHECKS[name].number
    assert number.split(".")[0] == str(int(chapter.number))
    assert re.search(rf"\bcheck\.{exercise}\(", sources)
    assert re.search(rf"\b{re.escape(number)}\b", sources)


def test_readme_shows_the_recorded_budgets(capsys):
    assert readme_table.main(["--check"]) == 0, capsys.readouterr().out


# Each guard refuses a notebook that breaks its rule, and accepts the good one.

DETAILS = "<details><summary>Hint</summary>h</details>"


def text(content, name="stdout"):
    return new_output("stream", text=content, name=name)


def figure():
    return new_output("display_data", data={"image/png": "aGk=", "text/plain": "<Figure size 1x1 with 1 Axes>"})


def cell(source, count, *outputs, tags=(guards.CHECKED,)):
    return new_code_cell(source, execution_count=count, outputs=list(outputs), metadata={"tags": list(tags)})


def good():
    exercises = []
    for i in range(5):
        exercises.append(new_markdown_cell(f"Exercise 0.{i} · difficulty 2/5 · 10 minutes\nTarget: 0.7\n{DETAILS * 2}"))
        source = f"def f():\n    ### BEGIN SOLUTION\n    return {i}\n    ### END SOLUTION\ncheck.f(f)"
        exercises.append(cell(source, 3 + i, text(f"✓ 0.{i} f: passed\n")))
    return new_notebook(
        cells=[
            new_markdown_cell("# Title, see [a paper](https://example.org/home/paper) and ../work/file"),
            cell("x = 1", 1, tags=()),
            cell("plt.show()\nprint(2.5)", 2, figure(), text("2.5\n")),
            *exercises,
        ],
        metadata={"course": {"seconds": 12.5, "peak_mb": 700}},
    )


@pytest.mark.parametrize("kind", ["notebooks", "solutions"])
def test_good_notebook_passes_every_guard(kind):
    assert [complaint for guard in guards.GUARDS[kind] for complaint in guard(good(), kind)] == []


def broken(change):
    notebook = good()
    change(notebook)
    return notebook


BAD = {
    "never run": (guards.executed_in_order, lambda n: n.cells[1].update(execution_count=None), "execution counts"),
    "run in another order": (guards.executed_in_order, lambda n: n.cells[2].update(execution_count=7), "from the top"),
    "error": (
        guards.without_errors,
        lambda n: n.cells[1].outputs.append(new_output("error", ename="E", evalue="v", traceback=[])),
        "cell 2 has an error",
    ),
    "announced error that did not happen": (
        guards.without_errors,
        lambda n: n.cells[1].metadata.update(tags=[guards.RAISES]),
        "cell 2 should raise",
    ),
    "stderr": (guards.without_errors, lambda n: n.cells[1].outputs.append(text("w", "stderr")), "wrote to stderr"),
    "unknown tag": (guards.tagged, lambda n: n.cells[1].metadata.update(tags=["nbval-check"]), "unknown tags"),
    "both tags": (
        guards.tagged,
        lambda n: n.cells[2].metadata.update(tags=[guards.CHECKED, guards.IGNORED]),
        "both checked and ignored",
    ),
    "print without tag": (guards.tagged, lambda n: n.cells[2].metadata.update(tags=[]), "cell 3 prints without"),
    "table without tag": (
        guards.tagged,
        lambda n: n.cells[1].outputs.append(new_output("execute_result", data={"text/html": "<table>"})),
        "cell 2 prints without",
    ),
    "nothing to check": (guards.tagged, lambda n: n.cells[2].outputs.pop(1), "cell 3 is to be checked, but has no"),
    "widget in a checked cell": (
        guards.tagged,
        lambda n: n.cells[2].update(source="interact(f, x=1)\nprint(2.5)"),
        "has live output",
    ),
    "semicolon in a checked cell": (guards.tagged, lambda n: n.cells[2].update(source="print(2.5);"), "ends with ';'"),
    "no figure": (guards.figures_with_numbers, lambda n: n.cells[2].outputs.pop(0), "has no figure"),
    "figure without a number": (
        guards.figures_with_numbers,
        lambda n: n.cells[2].outputs.pop(1),
        "prints and asserts no number",
    ),
    "long cell": (guards.short, lambda n: n.cells[1].update(source="x\n" * 41), "cell 2 has 41 lines"),
    "many long cells": (
        guards.short,
        lambda n: [cell.update(source="x\n" * 13) for cell in n.cells],
        "half of the code cells",
    ),
    "no budget": (guards.within_budget, lambda n: n.metadata.pop("course"), "no recorded time"),
    "too slow": (guards.within_budget, lambda n: n.metadata.course.update(seconds=61), "took 61 s"),
    "too big": (guards.within_budget, lambda n: n.metadata.course.update(peak_mb=5000), "took 5000 MB"),
    "path in source": (guards.portable, lambda n: n.cells[1].update(source="open('/home/me/x')"), "'/home/'"),
    "path in output": (guards.portable, lambda n: n.cells[2].outputs[1].update(text="/tmp/x 1\n"), "'/tmp/'"),
    "registry": (guards.portable, lambda n: n.cells[0].update(source="https://my.pypi.example"), "cell 1 contains"),
    "few exercises": (guards.explained_exercises, lambda n: n.cells.pop(), "has 4 exercises"),
    "no difficulty": (
        guards.explained_exercises,
        lambda n: n.cells[3].update(source=f"10 minutes, target 3 {DETAILS * 2}"),
        "cell 5: the exercise does not state its difficulty",
    ),
    "one hint": (
        guards.explained_exercises,
        lambda n: n.cells[5].update(source=n.cells[5].source.replace(DETAILS * 2, DETAILS)),
        "cell 7: the exercise has fewer than two",
    ),
    "no target": (
        guards.explained_exercises,
        lambda n: n.cells[3].update(source=n.cells[3].source.replace("Target", "Aim")),
        "does not state its target",
    ),
    "unchecked exercise": (
        guards.explained_exercises,
        lambda n: n.cells[12].update(source=n.cells[12].source.replace("check.f(f)", "")),
        "cell 13: the exercise is not checked",
    ),
    "unsolved": (guards.solved, lambda n: n.cells[4].outputs[0].update(text="✗ 0.1 f: wrong\n"), "does not pass"),
    "uncompared check": (guards.solved, lambda n: n.cells[4].metadata.update(tags=[guards.IGNORED]), "to be compared"),
    "exercise with outputs": (guards.untouched, lambda n: None, "cell 3 has outputs"),
    "exercise with solution": (guards.untouched, lambda n: None, "cell 5 contains a solution marker"),
}


@pytest.mark.parametrize("name", BAD)
def test_guard_refuses(name):
    guard, change, says = BAD[name]
    complaints = list(guard(broken(change), "notebooks"))
    assert any(says in complaint for complaint in complaints), complaints


def test_every_guard_is_tried_on_a_bad_notebook():
    assert {guard for guard, _, _ in BAD.values()} == {guard for used in guards.GUARDS.values() for guard in used}


def test_executed_notebook_has_what_the_guards_ask_for(tmp_path):
    path = tmp_path / "mini.ipynb"
    source = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nprint(1.5)"
    notebook = new_notebook(cells=[new_code_cell(source, metadata={"tags": [guards.CHECKED]})])
    nbformat.write(notebook, path)
    done = execute.execute(path, timeout=60)
    assert guards.has_figure(done.cells[0])
    assert [complaint for guard in guards.GUARDS["notebooks"] for complaint in guard(done, "notebooks")] == []
