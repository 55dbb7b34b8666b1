"""The course's commands: ``python -m course_lib --help`` lists them.

Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

import dataclasses
import json
import os
import sys
from typing import Annotated

import typer

app = typer.Typer(
    help="Commands of the course. Each has a working example: python -m course_lib COMMAND --help",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip


@app.callback()
def course() -> None:
    """Keep commands as subcommands while there is only one."""


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of lines.")] = False,
) -> None:
    """Check that everything the course needs is here: one line each, with the fix where something is missing.

    Exits with 1 if something is missing. Example: python -m course_lib doctor
    """
    from course_lib.start_here import doctor as examine

    findings = examine()
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        print(*findings, sep="\n")
    failed = sum(finding.status == "FAIL" for finding in findings)
    if failed:
        print(f"error: {failed} of {len(findings)} checks failed", file=sys.stderr)
        raise typer.Exit(1)


def main() -> None:
    """Run a command; what goes wrong in an expected way is one line on stderr and exit code 1.

    With ``COURSE_TRACEBACK=1`` in the environment the whole traceback is shown instead.
    """
    try:
        app(prog_name="python -m course_lib")
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("COURSE_TRACEBACK"):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
