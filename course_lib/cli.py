"""The course's commands: ``python -m course_lib --help`` lists them.

Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
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


@app.command()
def lpips(
    a: Annotated[Path, typer.Argument(help="A picture, or a folder of pictures.", show_default=False)],
    b: Annotated[Path | None, typer.Argument(help="What to compare it with.", show_default=False)] = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Compare all pictures in folder A.")] = False,
    net: Annotated[str, typer.Option(help="st-alex, st-vgg (offline), alex, vgg or squeeze (downloaded).")] = "st-alex",
    output: Annotated[Path | None, typer.Option(help="Also write a .json or .csv file.", show_default=False)] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs at a time.")] = 16,
) -> None:
    """LPIPS distances: of two pictures, of two folders whose files share names, or of all pairs in a folder.

    The two pictures of a pair must have one size. Names are matched without extensions, so x.png and x.jpg are a
    pair; hidden files and subfolders are left out. EXIF orientation is applied, grey and palette pictures become RGB,
    colour profiles are ignored, transparent pictures are refused.

    What cannot be compared is named on stderr, and the rest is compared; the exit code is then 1.

    \b
    Example, in the folder of the course:
    python -m course_lib lpips course_lib/data/lpips_example/ex_ref.png course_lib/data/lpips_example/ex_p0.png
    """  # noqa: D301
    from course_lib.comparison import compare

    if output and output.suffix not in (".json", ".csv"):
        raise ValueError(f"{output} ends in neither .json nor .csv; rename it")
    comparison = compare(a, b, all_pairs=all_pairs, net=net, batch_size=batch_size)
    print(f"LPIPS, net {net}: {comparison.weights}", file=sys.stderr)
    if comparison.results:
        print(comparison.table().to_string(index=False, float_format="{:.4f}".format))
        if output:
            comparison.write(output)
    for problem in comparison.problems:
        print(f"error: {problem}", file=sys.stderr)
    if comparison.problems or not comparison.results:
        counts = f"{len(comparison.results)} pairs compared, {len(comparison.problems)} problems"
        print(f"error: {counts}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def fetch(
    dataset: Annotated[str, typer.Argument(help="bapps, bapps-val, bapps-jnd or nights.", show_default=False)],
    data_dir: Annotated[Path, typer.Option(help="Where data sets live; is created.", show_default=False)],
    url: Annotated[
        str | None,
        typer.Option(help="An archive, or a folder of them: an address or a path on this machine.", show_default=False),
    ] = None,
    sha256: Annotated[
        list[str] | None,
        typer.Option(help="What the SHA-256 must be; give it once for each archive.", show_default=False),
    ] = None,
    any_count: Annotated[bool, typer.Option("--any-count", help="Accept another number of files.")] = False,
) -> None:
    """Download human judgments and unpack them; an interrupted download goes on where it stopped.

    bapps is everything (6.6 GB): 2AFC train (5.3 GB), 2AFC val (1.1 GB) and JND (0.2 GB); bapps-val is 2AFC val and
    JND; nights is NIGHTS (58 GB). What is complete already stays as it is.

    \b
    Example: python -m course_lib fetch bapps-val --data-dir datasets
    With an archive from elsewhere: python -m course_lib fetch nights --data-dir datasets --url nights.zip
    """  # noqa: D301
    from course_lib.data.fetch import fetch as fetch_dataset

    fetch_dataset(dataset, data_dir, url=url, sha256=sha256 or (), any_count=any_count)


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
