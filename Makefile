# `make demo` and `make test` set up what they need in .venv, then run the main job and the tests.
#
#   PYTHON  the interpreter, 3.11 to 3.14
#   N       cases per door of `make fuzz`; K kills of each command that writes
#   TORCH   the torch requirement, such as torch==2.13.0 or a path to a wheel; by default the newest

PYTHON ?= python3
TORCH ?= torch
N ?= 12500
K ?= 67
VENV := .venv
BIN := $(VENV)/bin
# One thread per test process: the arithmetic is small, and oversubscription slows it down.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: demo test robustness ray browser fuzz check wheel versions matrix outdated notebooks docs images promises benchmarks clean

$(VENV)/.core: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/.core
	$(BIN)/vlm-roofline estimate llava-1.5-7b --hardware nvidia-a100-sxm4-80gb
	$(BIN)/vlm-roofline estimate llava-1.5-7b --hardware nvidia-a100-sxm4-80gb --method divprune --keep 64 \
		--calibration nvidia-a100-sxm4-80gb
	$(BIN)/vlm-roofline reproduce prumerge-table2

test: $(VENV)/.dev
	$(ONE_THREAD) $(BIN)/python -m pytest -n auto --dist loadfile --ignore tests/robustness --ignore tests/browser \
		--ignore tests/ray

# Spoilt input at every door, kills, full disks, brute force: docs/reliability.md.
robustness: $(VENV)/.dev
	$(ONE_THREAD) $(BIN)/python -m pytest -n auto --dist loadfile tests/robustness

# Campaigns and sweeps on a Ray cluster of two nodes on this machine, with kills.
ray: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable '.[ray]'
	$(ONE_THREAD) $(BIN)/python -m pytest tests/ray

# The pages in a real browser. Debian's package chromium; without it the tests say so and are skipped.
browser: $(VENV)/.dev
	$(ONE_THREAD) $(BIN)/python -m pytest tests/browser

# Every door with N spoilt inputs, and 3 K kills: docs/reliability.md.
fuzz: $(VENV)/.dev
	$(ONE_THREAD) PYTHONPATH=tests/fakes $(BIN)/python -m fuzzing --cases $(N) --kills $(K) \
		--record docs/reliability.csv

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The wheel, in an environment of its own with no other file of the project in sight.
wheel: $(VENV)/.core
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	away=$$(mktemp -d) && trap 'rm -rf "$$away"' EXIT && $(PYTHON) -m venv "$$away/env" && \
		"$$away/env/bin/python" -m pip install --quiet dist/*.whl && \
		cp tests/packaging/installed.py "$$away" && cd "$$away" && env/bin/python -I installed.py
	rm -rf build

versions: $(VENV)/.dev
	@$(BIN)/python -V
	@$(BIN)/python -m pip list --format freeze | grep -E '^(torch|torchao|transformers|numpy|pandas|pydantic|typer|rich|matplotlib)=='

# The suite on the lowest and newest releases and on every Python of this machine: docs/compatibility.csv.
matrix: $(VENV)/.dev
	$(BIN)/nox

outdated: $(VENV)/.dev
	@$(BIN)/nox --sessions outdated

notebooks: $(VENV)/.dev
	$(BIN)/jupytext --to ipynb --update notebooks/*.py
	$(BIN)/python -m pytest --nbmake --overwrite -q --override-ini addopts= notebooks/*.ipynb

# build/site: the pages of docs/, one for each method and one for each package; a broken link is an error.
docs: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# The pictures of README and of docs/gallery.md.
images: $(VENV)/.dev
	$(ONE_THREAD) PYTHONPATH=tests/fakes $(BIN)/python benchmarks/pictures.py
	$(ONE_THREAD) $(BIN)/python benchmarks/evidence.py --picture docs/images/evidence.png

# What the project promises, and whether it holds: docs/promises.md. Fails where a promise does not.
promises: $(VENV)/.dev
	$(ONE_THREAD) $(BIN)/python benchmarks/promises.py --out docs/promises.md

benchmarks: $(VENV)/.dev
	$(ONE_THREAD) $(BIN)/python -m pytest benchmarks/bench_estimate.py benchmarks/bench_stage_hooks.py --benchmark-only --override-ini 'addopts=--import-mode=importlib'
	$(ONE_THREAD) $(BIN)/python benchmarks/bench_token_reduction.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
