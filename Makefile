# make lab   opens the course in JupyterLab        make exercises   solutions/ -> exercises/
# make test  proves that everything works          make notebooks   executes notebooks/ and solutions/ again
# make bench compares speed with other libraries   make lint / make clean
# make bench-judgments  chapter 08's long measurements (an hour; downloads AlexNet)
# make bench-attacks    chapter 09's attacks beside other libraries' (three quarters of an hour)
# make bench-distillation  chapter 11's students, teachers and throughput (an hour)
# make bench-certified  chapter 10's certified accuracy on digits, one network per family (20 minutes)
# make bench-certification  chapter 12's losses, margins, shipped metric and attacks on the proof (half an hour)
# make bench-restoration  trains and measures chapter 02's networks (40 minutes; goes on where it was stopped)
PYTHON ?= python3
LAB_ARGS ?=
PYTEST_ARGS ?= --durations=10
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
SOLUTIONS := $(wildcard solutions/*.ipynb)
EXERCISES := $(wildcard exercises/*.ipynb)
VENV := $(CURDIR)/.venv/bin/python
CACHE := $(CURDIR)/.cache

# Nothing is written outside this folder.
export PIP_NO_CACHE_DIR := 1
export XDG_CACHE_HOME := $(CACHE)/xdg/cache
export XDG_CONFIG_HOME := $(CACHE)/xdg/config
export XDG_DATA_HOME := $(CACHE)/xdg/data
export XDG_STATE_HOME := $(CACHE)/xdg/state
export JUPYTER_CONFIG_DIR := $(CACHE)/jupyter/config
export JUPYTER_DATA_DIR := $(CACHE)/jupyter/data
export JUPYTER_RUNTIME_DIR := $(CACHE)/jupyter/runtime
export JUPYTERLAB_SETTINGS_DIR := $(CACHE)/jupyter/settings
export JUPYTERLAB_WORKSPACES_DIR := $(CACHE)/jupyter/workspaces
export IPYTHONDIR := $(CACHE)/ipython
export npm_config_cache := $(CACHE)/npm
export MPLCONFIGDIR := $(CACHE)/matplotlib
export TORCH_HOME := $(CACHE)/torch
export TORCHINDUCTOR_CACHE_DIR := $(CACHE)/torchinductor
export TRITON_HOME := $(CACHE)/triton
export SCIKIT_LEARN_DATA := $(CACHE)/scikit-learn
export HYPOTHESIS_STORAGE_DIRECTORY := $(CACHE)/hypothesis
export RUFF_CACHE_DIR := $(CACHE)/ruff
export MYPY_CACHE_DIR := $(CACHE)/mypy

.PHONY: lab test lint exercises notebooks bench bench-judgments bench-attacks bench-restoration bench-certified \
	bench-distillation bench-certification clean
.DELETE_ON_ERROR:

# The stamps are trusted only while .venv runs and imports *this* checkout: a removed Python, an interrupted
# installation or a moved folder makes them void.
IMPORTS_THIS := import sys, course_lib; sys.exit(not course_lib.__file__.startswith(sys.argv[1] + "/course_lib"))
$(shell cd / && "$(VENV)" -c '$(IMPORTS_THIS)' "$(CURDIR)" 2>/dev/null || rm -f "$(CURDIR)"/.venv/.installed*)

lab: .venv/.installed
	"$(VENV)" -m course_lib doctor || echo "JupyterLab opens all the same; what failed above may be needed later."
	"$(VENV)" -m jupyterlab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir="$(CURDIR)" \
		--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb \
		$(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_ARGS)

test: lint
	"$(VENV)" -m pytest $(PYTEST_ARGS) --basetemp=.cache/pytest --nbval-lax --nbval-sanitize-with tests/nbval.cfg \
		--nbval-cell-timeout 120 tests $(NOTEBOOKS) $(EXERCISES) $(SOLUTIONS)

lint: .venv/.installed-test
	"$(VENV)" -m ruff check .
	"$(VENV)" -m mypy

exercises: .venv/.installed-test
	"$(VENV)" tools/exercises.py

notebooks: .venv/.installed-test
	"$(VENV)" tools/execute.py $(NOTEBOOKS) $(SOLUTIONS)
	"$(VENV)" tools/exercises.py
	"$(VENV)" tools/readme_table.py

bench: .venv/.installed-test
	"$(VENV)" tests/benchmarks/bench_precision.py
	"$(VENV)" tests/benchmarks/bench_lpips.py
	"$(VENV)" tests/benchmarks/bench_lipschitz.py

bench-certified: .venv/.installed-test
	"$(VENV)" tests/benchmarks/bench_certified.py

bench-distillation: .venv/.installed-test
	"$(VENV)" -m tests.benchmarks.bench_distillation

bench-certification: .venv/.installed-test
	"$(VENV)" -m tests.benchmarks.bench_certification

bench-judgments: .venv/.installed-test
	"$(VENV)" tests/benchmarks/bench_judgments.py

bench-attacks: .venv/.installed-test
	"$(VENV)" -m tests.benchmarks.bench_attacks

bench-restoration: .venv/.installed-test
	"$(VENV)" tests/benchmarks/bench_restoration.py --precision bf16

clean:
	rm -rf .venv .cache build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || \
		{ echo "error: there is no $(PYTHON); install Python 3.11 or newer, or name one: make lab PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" tools/preflight.py
	@"$(VENV)" -c 'import pip, sys; assert sys.version_info >= (3, 11)' 2>/dev/null || \
		"$(PYTHON)" -m venv --clear .venv
	"$(VENV)" -m pip install --quiet -e .
	@touch $@

.venv/.installed-test: .venv/.installed
	"$(VENV)" -m pip install --quiet -e ".[test]"
	@touch $@
