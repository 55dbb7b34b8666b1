"""Derive exercises/ from solutions/: what stands between the markers becomes ``raise NotImplementedError``.

Working example: ``python tools/exercises.py`` rewrites exercises/. With ``--check`` it only lists what it
would change, and exits with 1 if there is anything.
"""

import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course_lib.paths import repo_root, write_atomically

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


def clear_source(source: str) -> str:
    """One cell's source with every marked block replaced, at the indentation of its BEGIN marker.

    Raises:
        ValueError: if a marker has no partner, is nested or malformed, or stands outside a function.
    """
    kept, inside = [], False
    for line in source.split("\n"):
        marker, indent = line.strip(), line[: len(line) - len(line.lstrip())]
        if marker == BEGIN:
            if inside:
                raise ValueError(f"a second {BEGIN!r} before {END!r}")
            if not indent:
                raise ValueError(f"{BEGIN!r} outside a function; an untouched exercise has to run clean")
            kept.append(f"{indent}raise NotImplementedError")
            inside = True
        elif marker == END:
            if not inside:
                raise ValueError(f"{END!r} without {BEGIN!r}")
            inside = False
        elif "BEGIN SOLUTION" in line or "END SOLUTION" in line:
            raise ValueError(f"malformed marker {marker!r}; write {BEGIN!r} or {END!r}, alone on its line")
        elif not inside:
            kept.append(line)
    if inside:
        raise ValueError(f"{BEGIN!r} without {END!r}")
    return "\n".join(kept)


def to_exercise(solution: NotebookNode, name: str) -> NotebookNode:
    """The exercise of a solution notebook: cleared, without outputs, counts, checks of outputs or budget.

    Raises:
        ValueError: for a wrong marker; the message names the notebook `name` and the cell.
    """
    exercise = nbformat.from_dict(solution)
    exercise.metadata = {key: exercise.metadata[key] for key in ("kernelspec",) if key in exercise.metadata}
    for number, cell in enumerate(exercise.cells, start=1):
        try:
            if cell.cell_type == "code":
                cell.source, cell.outputs, cell.execution_count = clear_source(cell.source), [], None
                tags = [tag for tag in cell.metadata.get("tags", []) if not tag.startswith("nbval-check")]
                cell.metadata = {"tags": tags} if tags else {}
            elif "BEGIN SOLUTION" in cell.source or "END SOLUTION" in cell.source:
                raise ValueError("a solution marker outside a code cell")
        except ValueError as error:
            raise ValueError(f"{name}, cell {number}: {error}") from None
    return exercise


def main(arguments: list[str], root: Path | None = None) -> int:
    """Write exercises/, or with ``--check`` only say what would change; the exit code."""
    root = root or repo_root()
    solutions = {path.name: path for path in sorted((root / "solutions").glob("*.ipynb"))}
    try:
        wanted = {
            name: nbformat.writes(to_exercise(nbformat.read(path, as_version=4), f"solutions/{name}")) + "\n"
            for name, path in solutions.items()
        }
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = {path.name: path.read_text("utf-8") for path in (root / "exercises").glob("*.ipynb")}
    changed = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if arguments == ["--check"]:
        for name in changed:
            print(f"exercises/{name} is not what solutions/ gives; run: make exercises")
        return int(bool(changed))
    for name in changed:
        if name in wanted:
            write_atomically(root / "exercises" / name, wanted[name].encode())
            print(f"wrote exercises/{name}")
        else:
            (root / "exercises" / name).unlink()
            print(f"removed exercises/{name}, which has no solution")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
