"""tools/readme_table.py puts the recorded numbers into the README and notices when they change."""

import nbformat
import pytest
from nbformat.v4 import new_notebook

from course_lib.start_here import CHAPTERS
from tools import readme_table


@pytest.fixture
def root(tmp_path):
    (tmp_path / "notebooks").mkdir()
    record(tmp_path, 12.4)
    (tmp_path / "README.md").write_text(f"# Course\n{readme_table.BEGIN}\nold\n{readme_table.END}\nafter\n")
    return tmp_path


def record(root, seconds):
    course = {"seconds": seconds, "peak_mb": 1536}
    nbformat.write(new_notebook(metadata={"course": course}), root / "notebooks" / "07_lpips.ipynb")


def test_table_has_every_chapter_and_the_recorded_numbers(root, capsys):
    assert readme_table.main(["--check"], root) == 1
    assert readme_table.main([], root) == 0
    assert readme_table.main(["--check"], root) == 0
    lines = (root / "README.md").read_text("utf-8").splitlines()
    assert lines[0] == "# Course" and lines[-1] == "after" and "old" not in lines
    assert sum(line.startswith(f"| {chapter.number} |") for line in lines for chapter in CHAPTERS) == len(CHAPTERS)
    (row,) = [line for line in lines if line.startswith("| 07 |")]
    assert "notebooks/07_lpips.ipynb" in row and "| 12 s | 1.5 GB |" in row
    (row,) = [line for line in lines if line.startswith("| 13 |")]
    assert "to come" in row and ".ipynb" not in row


def test_changed_budget_is_noticed(root, capsys):
    readme_table.main([], root)
    record(root, 33.0)
    assert readme_table.main(["--check"], root) == 1
    assert "out of date" in capsys.readouterr().out


MARKERS = readme_table.BEGIN + readme_table.END


@pytest.mark.parametrize("readme", ["none", readme_table.BEGIN, readme_table.END + readme_table.BEGIN, MARKERS * 2])
def test_readme_with_wrong_markers_is_one_line_and_unchanged(readme, root, capsys):
    (root / "README.md").write_text(readme)
    assert readme_table.main([], root) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: README.md needs") and error.count("\n") == 1
    assert (root / "README.md").read_text() == readme


def test_notebook_that_was_never_measured_is_named(root, capsys):
    nbformat.write(new_notebook(), root / "notebooks" / "07_lpips.ipynb")
    assert readme_table.main([], root) == 1
    assert "07_lpips.ipynb has no recorded" in capsys.readouterr().err
