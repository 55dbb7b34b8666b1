"""Writes the chapter map into README.md, with the time and memory that tools/execute.py recorded.

Working example: ``python tools/readme_table.py``. With ``--check`` it changes nothing and exits with 1 if the
README is out of date.
"""

import sys
from pathlib import Path

import nbformat

from course_lib.paths import repo_root, write_atomically
from course_lib.start_here.chapters import CHAPTERS

BEGIN, END = "<!-- chapters:begin -->", "<!-- chapters:end -->"


def table(root: Path) -> str:
    """The chapter map in Markdown, one row per chapter; those not written yet have neither links nor numbers."""
    rows = ["| | chapter | what you build | time | memory | exercises |", "|---|---|---|---:|---:|---|"]
    for chapter in CHAPTERS:
        notebook, exercise = f"notebooks/{chapter.stem}.ipynb", f"exercises/{chapter.stem}.ipynb"
        if not (root / notebook).is_file():
            rows.append(f"| {chapter.number} | {chapter.title} | {chapter.builds} | | | *to come* |")
            continue
        course = nbformat.read(root / notebook, as_version=4).metadata.get("course", {})
        if not {"seconds", "peak_mb"} <= course.keys():
            raise ValueError(f"{notebook} has no recorded time and memory; run: tools/execute.py {notebook}")
        rows.append(
            f"| {chapter.number} | [{chapter.title}]({notebook}) | {chapter.builds} "
            f"| {course['seconds']:.0f} s | {course['peak_mb'] / 1024:.1f} GB | [open]({exercise}) |"
        )
    return "\n".join(rows)


def filled(readme: str, table: str) -> str:
    """The README with what stands between the markers replaced.

    Raises:
        ValueError: unless each marker is there once, in order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in before + after:
        raise ValueError(f"README.md needs the lines {BEGIN} and {END}, once each, in this order")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main(arguments: list[str], root: Path | None = None) -> int:
    """Update README.md, or with ``--check`` only compare; the exit code."""
    root = root or repo_root()
    path = root / "README.md"
    try:
        old = path.read_text("utf-8")
        new = filled(old, table(root))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if arguments == ["--check"]:
        if new != old:
            print("the chapter map of README.md is out of date; run: python tools/readme_table.py")
        return int(new != old)
    if new != old:
        write_atomically(path, new.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
