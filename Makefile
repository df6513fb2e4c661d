# `make demo` and `make test` set up what they need in .venv, then run the main job and the tests.
#
#   PYTHON  the interpreter, 3.11 to 3.14
#   TORCH   the torch requirement, such as torch==2.13.0 or a path to a wheel

PYTHON ?= python3
TORCH ?= torch>=2.11,<2.16
VENV := .venv
BIN := $(VENV)/bin
# One thread per test process: the arithmetic is small, and oversubscription slows it down.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: demo test check notebooks benchmarks clean

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
	$(ONE_THREAD) $(BIN)/python -m pytest -n auto --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(VENV)/.dev
	$(BIN)/jupytext --to ipynb --execute notebooks/*.py

benchmarks: $(VENV)/.dev
	$(ONE_THREAD) $(BIN)/python -m pytest benchmarks/bench_*.py --benchmark-only --override-ini 'addopts=--import-mode=importlib'

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
