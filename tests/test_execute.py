"""tools/execute.py: it writes outputs and the budget, and leaves a notebook that fails as it was."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import execute


@pytest.fixture
def notebook(tmp_path):
    """Writes a notebook of these code cells and returns its path."""

    def write(*sources):
        cells = [new_markdown_cell("text"), *(new_code_cell(source) for source in sources)]
        nbformat.write(new_notebook(cells=cells), tmp_path / "00_mini.ipynb")
        return tmp_path / "00_mini.ipynb"

    return write


def test_outputs_and_budget_are_written_and_nothing_of_the_machine(notebook, capsys):
    path = notebook(
        "block = bytearray(300 * 2**20)\nimport time\ntime.sleep(0.3)\nprint(len(block))",
        "import os\nprint(os.path.exists('00_mini.ipynb'))",
        "import ipywidgets\nprint('static')\nipywidgets.interact(lambda x: x, x=1.0);",
    )
    assert execute.main([str(path)]) == 0, capsys.readouterr().err
    done = nbformat.read(path, as_version=4)
    texts = [[output.get("text") for output in cell.outputs] for cell in done.cells[1:]]
    assert texts == [["314572800\n"], ["True\n"], ["static\n"]], "outputs in the notebook's folder, no widgets"
    assert [cell.execution_count for cell in done.cells[1:]] == [1, 2, 3]
    assert 300 < done.metadata.course.peak_mb < 1000
    assert done.metadata.course.seconds > 0.3
    assert done.metadata.language_info == {"name": "python"}
    assert all(cell.metadata == {} for cell in done.cells)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("1 / 0", "cell 3: ZeroDivisionError: division by zero"),
        ("import time; time.sleep(60)", "cell 3: longer than 2 s"),
        ("import os; os._exit(1)", "cell 3: the kernel died"),
    ],
)
def test_failing_cell_is_one_line_and_the_file_stays(source, says, notebook, capsys):
    path = notebook("x = 1", source)
    before = path.read_bytes()
    assert execute.main([str(path), "--timeout", "2"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and error.count("\n") == 1
    assert path.read_bytes() == before


def test_value_of_a_check_is_not_shown(notebook):
    source = "from course_lib.checks import exercise\ncheck = exercise('9.9')(lambda f, random: f())\ncheck(int)"
    path = notebook(source)
    (output,) = execute.execute(path, timeout=60).cells[1].outputs
    assert output.text == "✓ 9.9 <lambda>: passed\n"


def test_missing_notebook_is_one_line(tmp_path, capsys):
    assert execute.main([str(tmp_path / "none.ipynb")]) == 1
    assert "No such file" in capsys.readouterr().err
