"""environment.yml, pyproject.toml and the imports agree; make's checks before an installation say what is wrong."""

import ast
import re
import subprocess
import sys
import tomllib

import nbformat
import pytest
import rattler
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course_lib.paths import repo_root
from course_lib.start_here import CHAPTERS
from tools import preflight

ROOT = repo_root()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
CONDA_SPECS = [spec for spec in ENVIRONMENT["dependencies"] if isinstance(spec, str)]
(PIP_SPECS,) = (entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict))

# PyPI's name -> conda-forge's name, where they differ
CONDA_NAMES = {"torch": "pytorch", "jupyter-client": "jupyter_client", "playwright": "playwright-python"}
# import name -> PyPI's name, where they differ
PYPI_NAMES = {
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "rattler": "py-rattler",
    "deel": "deel-torchlip",
    "mpl_toolkits": "matplotlib",
    "IPython": "ipywidgets",  # which needs it
}


def required():
    """Requirements of pyproject.toml by name, those of the tests included."""
    specs = PYPROJECT["dependencies"] + PYPROJECT["optional-dependencies"]["test"]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, specs)}


def bounds(requirement):
    return sorted(map(str, requirement.specifier))


@pytest.mark.parametrize("spec", CONDA_SPECS)
def test_conda_understands_every_line(spec):
    assert rattler.MatchSpec(spec, strict=True).name is not None


def test_conda_refuses_a_malformed_line():
    with pytest.raises(Exception, match="version spec"):
        rattler.MatchSpec("pytorch => 2 or so", strict=True)


def test_conda_has_the_same_packages_and_bounds_as_pip():
    conda = {spec.split()[0]: spec.split()[1:] for spec in CONDA_SPECS}
    assert conda.pop("python") == [PYPROJECT["requires-python"]]
    conda.pop("pip")
    pip = {requirement.name: requirement for requirement in map(Requirement, PIP_SPECS[:-1])}
    assert PIP_SPECS[-1] == "-e ."
    expected, found = {}, {name: bounds(requirement) for name, requirement in pip.items()}
    found |= {name: sorted("".join(given).split(",")) for name, given in conda.items()}
    for name, requirement in required().items():
        expected[CONDA_NAMES.get(name, name)] = bounds(requirement)
    assert found == expected


def test_every_line_says_which_chapters_use_it():
    numbers = {chapter.number for chapter in CHAPTERS}
    text = (ROOT / "environment.yml").read_text("utf-8")
    lines = [line for line in text.partition("dependencies:\n")[2].splitlines() if not line.endswith("pip:")]
    assert len(lines) == len(CONDA_SPECS) + len(PIP_SPECS)
    for line in lines:
        users = line.partition("  # ")[2].split(", ")
        assert users in (["all"], ["tests"]) or set(users) <= numbers, f"{line.strip()!r} names no chapters"


def imported(source):
    """Top-level names of the absolute imports in Python source, wherever they stand."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).partition(".")[0]


def sources():
    """Every Python file and every code cell of the course, with its name."""
    for folder in ("course_lib", "tests", "tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text("utf-8")
    for folder in ("notebooks", "solutions"):
        for path in sorted((ROOT / folder).glob("*.ipynb")):
            for cell in nbformat.read(path, as_version=4).cells:
                if cell.cell_type == "code":
                    yield path.name, re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.MULTILINE)


def test_every_import_is_declared():
    own = {"course_lib", "tests", "tools"}
    at_run_time = {canonicalize_name(Requirement(spec).name) for spec in PYPROJECT["dependencies"]}
    undeclared = set()
    for name, source in sources():
        allowed = at_run_time if name.startswith(("course_lib", "0", "1")) else required()
        for module in set(imported(source)) - own - sys.stdlib_module_names:
            if canonicalize_name(PYPI_NAMES.get(module, module)) not in allowed:
                undeclared.add(f"{name} imports {module}")
    assert undeclared == set()


def test_import_inside_a_function_is_seen():
    assert list(imported("def f():\n    import a.b, c\n    from d.e import g\n    from . import h")) == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"version": (3, 10)}, "Python 3.10 is too old"),
        ({"free_bytes": 7.9e9}, "only 7.9 GB of disk is free here, 8 GB are needed"),
    ],
)
def test_installation_that_cannot_work_is_refused_in_one_line(given, says, tmp_path):
    problem = preflight.problem(**({"version": (3, 11), "free_bytes": 9e9, "folder": str(tmp_path)} | given))
    assert says in problem and "\n" not in problem


def test_full_disk_is_no_problem_once_pytorch_is_installed(tmp_path):
    installed = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages" / "torch"
    installed.mkdir(parents=True)
    assert "disk" in preflight.problem(free_bytes=1e9, folder=str(tmp_path))
    (installed / "version.py").touch()
    assert preflight.problem(free_bytes=1e9, folder=str(tmp_path)) is None


def test_missing_or_old_python_stops_make_with_one_line(tmp_path):
    checkout = tmp_path / "check out"
    (checkout / "tools").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "tools/preflight.py"):
        (checkout / name).write_text((ROOT / name).read_text("utf-8"))
    run = ["make", "lab", "PYTHON=no-such-python"]
    done = subprocess.run(run, cwd=checkout, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith("error: there is no no-such-python; install Python 3.11")
    assert not (checkout / ".venv").exists()
