"""The exercise generator: it clears exactly what is marked, refuses bad markers, and exercises/ is up to date."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import exercises

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
SOLUTION = """def double(x):
    # a hint stays
    ### BEGIN SOLUTION
    y = x + x
    return y
    ### END SOLUTION
check.double(double)"""
EXERCISE = """def double(x):
    # a hint stays
    raise NotImplementedError
check.double(double)"""


def checkout(tmp_path, *sources):
    """A folder with solutions/00_mini.ipynb of these code cells, and an empty exercises/."""
    cells = [new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(sources)]
    for folder in ("solutions", "exercises"):
        (tmp_path / folder).mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / "solutions" / "00_mini.ipynb")
    return tmp_path


def test_only_the_marked_lines_are_replaced():
    assert exercises.clear_source(SOLUTION) == EXERCISE


def test_deeper_block_keeps_its_indentation_and_what_follows():
    source = "class A:\n    def f(self):\n        ### BEGIN SOLUTION\n        z\n        ### END SOLUTION\n\nB = 1"
    assert exercises.clear_source(source) == "class A:\n    def f(self):\n        raise NotImplementedError\n\nB = 1"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def f():\n    1\n    ### END SOLUTION", "'### END SOLUTION' without"),
        ("def f():\n    ### BEGIN SOLUTION\n    ### BEGIN SOLUTION\n    ### END SOLUTION", "a second"),
        ("def f():\n    ### BEGIN SOLUTION\n    return 1", "without '### END SOLUTION'"),
        ("def f():\n    ## BEGIN SOLUTION\n    return 1\n    ### END SOLUTION", "malformed marker"),
        ("### BEGIN SOLUTION\nx = 1\n### END SOLUTION", "outside a function"),
    ],
)
def test_bad_marker_is_one_line_that_names_notebook_and_cell(source, says, tmp_path, capsys):
    root = checkout(tmp_path, "x = 1", source)
    assert exercises.main([], root) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: solutions/00_mini.ipynb, cell 2: ")
    assert says in error and error.count("\n") == 1
    assert not list((root / "exercises").iterdir())


def test_marker_in_a_markdown_cell_is_refused():
    with pytest.raises(ValueError, match="mini, cell 1: a solution marker outside a code cell"):
        exercises.to_exercise(new_notebook(cells=[new_markdown_cell("### BEGIN SOLUTION")]), "mini")


def test_exercise_has_no_outputs_counts_or_checked_output_but_the_same_cell_ids():
    cell = new_code_cell(SOLUTION, id="abc", execution_count=3, outputs=[new_output("stream", text="4\n")])
    cell.metadata = {"tags": ["nbval-check-output"], "execution": {"started": "now"}}
    notebook = new_notebook(cells=[cell], metadata={"course": {"seconds": 1}, "kernelspec": KERNEL})
    exercise = exercises.to_exercise(notebook, "mini")
    assert exercise.metadata == {"kernelspec": KERNEL}
    assert exercise.cells[0] == new_code_cell(EXERCISE, id="abc", metadata={})
    assert notebook.cells[0].source == SOLUTION, "the solution itself must not change"


def test_check_lists_drift_and_a_second_run_changes_nothing(tmp_path, capsys):
    root = checkout(tmp_path, SOLUTION)
    (root / "exercises" / "99_old.ipynb").write_text("{}")
    assert exercises.main(["--check"], root) == 1
    out = capsys.readouterr().out
    assert "exercises/00_mini.ipynb is not" in out and "exercises/99_old.ipynb is not" in out
    assert exercises.main([], root) == 0
    first = (root / "exercises" / "00_mini.ipynb").read_bytes()
    assert exercises.main([], root) == 0 and exercises.main(["--check"], root) == 0
    assert [path.name for path in (root / "exercises").iterdir()] == ["00_mini.ipynb"]
    assert (root / "exercises" / "00_mini.ipynb").read_bytes() == first


def test_committed_exercises_are_what_the_solutions_give(capsys):
    assert exercises.main(["--check"]) == 0, capsys.readouterr().out
