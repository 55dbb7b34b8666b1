"""What every committed notebook must obey, beyond what nbval sees. Each guard yields complaints, one line each."""

import re
import statistics
from collections.abc import Iterator

from nbformat import NotebookNode

CHECKED, IGNORED, RAISES = "nbval-check-output", "nbval-ignore-output", "raises-exception"
MACHINE = re.compile(
    r"(?<![\w.~])/(?:home|root|tmp|Users|work|opt|var|usr|mnt)/|\b[A-Z]:\\|site-packages|"
    r"https?://\S*(?:pypi|pythonhosted|anaconda|registry)\S*"
)
LIVE = re.compile(r"\b(?:clear_output|interact|interactive|interactive_output|tqdm|trange|Output)\s*\(")
BUDGET_SECONDS = {"notebooks": 60, "solutions": 30}
BUDGET_MB, MEDIAN_LINES, MAX_LINES, MIN_EXERCISES = 4096, 12, 40, 5


def code_cells(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """Code cells that are not empty, with their number in the notebook, from 1."""
    return [(i, cell) for i, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code" and cell.source.strip()]


def tags(cell: NotebookNode) -> set[str]:
    """Tags of a cell."""
    return set(cell.metadata.get("tags", []))


def has_figure(cell: NotebookNode) -> bool:
    """Whether a cell's outputs hold a picture."""
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


def printed(cell: NotebookNode) -> str:
    """All text that a cell's outputs show: prints, results, tables; not the placeholder of a figure."""
    texts = [output.text for output in cell.outputs if output.output_type == "stream"]
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" not in data:
            texts += [data[kind] for kind in ("text/plain", "text/html") if kind in data]
    return "\n".join("".join(text) for text in texts).strip()


def executed_in_order(notebook: NotebookNode, kind: str) -> Iterator[str]:
    """Every code cell was run, from top to bottom, in one fresh kernel."""
    counts = [cell.execution_count for _, cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}; execute the notebook from the top"


def without_errors(notebook: NotebookNode, kind: str) -> Iterator[str]:
    """No error and no stderr is stored, except errors that a tag announces; and those did happen."""
    for i, cell in code_cells(notebook):
        raised = any(output.output_type == "error" for output in cell.outputs)
        if raised != (RAISES in tags(cell)):
            yield f"cell {i} has an error without the tag {RAISES}" if raised else f"cell {i} should raise, and did not"
        if any(output.get("name") == "stderr" for output in cell.outputs):
            yield f"cell {i} wrote to stderr; remove the cause of the warning"


def tagged(notebook: NotebookNode, kind: str) -> Iterator[str]:
    """Known tags only; each cell that prints has exactly one of check and ignore; a checked cell prints."""
    for i, cell in code_cells(notebook):
        found = tags(cell)
        if unknown := found - {CHECKED, IGNORED, RAISES}:
            yield f"cell {i} has unknown tags {sorted(unknown)}"
        if {CHECKED, IGNORED} <= found:
            yield f"cell {i} is both checked and ignored"
        if printed(cell) and not found & {CHECKED, IGNORED}:
            yield f"cell {i} prints without {CHECKED} or {IGNORED}"
        if CHECKED in found and not printed(cell):
            yield f"cell {i} is to be checked, but has no printed output"
        if CHECKED in found and cell.source.rstrip().endswith(";"):
            yield f"cell {i} is to be checked, but ends with ';', which nbval ignores; assign the value to _ instead"
        if CHECKED in found and LIVE.search(cell.source):
            yield f"cell {i} is to be checked, but has live output (a widget, a progress bar, clear_output)"


def figures_with_numbers(notebook: NotebookNode, kind: str) -> Iterator[str]:
    """A chapter has figures; each is paired with a printed or asserted number, because nbval compares no pictures."""
    figures = [(i, cell) for i, cell in code_cells(notebook) if has_figure(cell)]
    if kind == "notebooks" and not figures:
        yield "has no figure"
    for i, cell in figures:
        if not re.search(r"\d", printed(cell)) and not re.search(r"^\s*assert\b", cell.source, re.MULTILINE):
            yield f"cell {i} has a figure, but prints and asserts no number"


def short(notebook: NotebookNode, kind: str) -> Iterator[str]:
    """Cells are short: half of them up to 12 lines, none above 40."""
    lines = {i: len(cell.source.splitlines()) for i, cell in code_cells(notebook)}
    if lines and statistics.median(lines.values()) > MEDIAN_LINES:
        yield f"half of the code cells are longer than {MEDIAN_LINES} lines"
    for i, n in lines.items():
        if n > MAX_LINES:
            yield f"cell {i} has {n} lines, more than {MAX_LINES}"


def within_budget(notebook: NotebookNode, kind: str) -> Iterator[str]:
    """Time and memory were recorded by tools/execute.py, and are within the limits."""
    course = notebook.metadata.get("course", {})
    if not {"seconds", "peak_mb"} <= course.keys():
        yield "has no recorded time and memory; run tools/execute.py on it"
        return
    if course["seconds"] > BUDGET_SECONDS[kind]:
        yield f"took {course['seconds']} s, more than {BUDGET_SECONDS[kind]}"
    if course["peak_mb"] > BUDGET_MB:
        yield f"took {course['peak_mb']} MB, more than {BUDGET_MB}"


def portable(notebook: NotebookNode, kind: str) -> Iterator[str]:
    """No path of one machine and no address of a package registry, in sources or printed outputs."""
    for i, cell in enumerate(notebook.cells, 1):
        shown = printed(cell) if cell.cell_type == "code" else ""
        if match := MACHINE.search(cell.source + "\n" + shown):
            yield f"cell {i} contains {match.group()!r}"


def explained_exercises(notebook: NotebookNode, kind: str) -> Iterator[str]:
    """At least five exercises; each states difficulty, minutes, target and two folded hints, and is checked."""
    marked = [i for i, cell in code_cells(notebook) if "### BEGIN SOLUTION" in cell.source]
    if len(marked) < MIN_EXERCISES:
        yield f"has {len(marked)} exercises, fewer than {MIN_EXERCISES}"
    for place, i in enumerate(marked):
        # its cell, what stands before it since the last exercise, and the code cell after it, which may check it
        cells = notebook.cells[marked[place - 1] if place else 0 : i]
        cells += [cell for cell in notebook.cells[i : i + 1] if cell.cell_type == "code"]
        text = "\n".join(cell.source for cell in cells)
        wanted = {"difficulty": r"difficulty \d/5", "minutes": r"\d+ minutes", "target": r"(?i)\btarget\b"}
        for what, pattern in wanted.items():
            if not re.search(pattern, text):
                yield f"cell {i}: the exercise does not state its {what}"
        if len(re.findall("<details>", text)) < 2:
            yield f"cell {i}: the exercise has fewer than two folded hints"
        if not re.search(r"\bcheck\.\w+\(", text):
            yield f"cell {i}: the exercise is not checked"


def solved(notebook: NotebookNode, kind: str) -> Iterator[str]:
    """Every check in a solution says passed, and is compared by nbval."""
    for i, cell in code_cells(notebook):
        if re.search("[✗○] ", printed(cell)):
            yield f"cell {i}: a check of the solution does not pass"
        if "✓ " in printed(cell) and CHECKED not in tags(cell):
            yield f"cell {i}: the check's line has to be compared; tag it {CHECKED}"


def untouched(notebook: NotebookNode, kind: str) -> Iterator[str]:
    """An exercise has neither outputs nor solutions."""
    for i, cell in code_cells(notebook):
        if cell.outputs or cell.execution_count is not None:
            yield f"cell {i} has outputs; run: make exercises"
        if "SOLUTION" in cell.source:
            yield f"cell {i} contains a solution marker"


COMMON = (executed_in_order, without_errors, tagged, figures_with_numbers, short, within_budget, portable)
GUARDS = {
    "notebooks": COMMON,
    "solutions": (*COMMON, explained_exercises, solved),
    "exercises": (untouched, portable, short),
}
