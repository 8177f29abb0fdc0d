# Two commands for a newcomer: `make demo` and `make test`. Each makes its own environment in .venv.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
FAST := tests/test_house.py tests/test_wall.py tests/losses \
  $(patsubst %,tests/distiller/test_%.py,errors exactness labels objective taps weights_and_masks)
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar on

.PHONY: demo test test-long test-jax test-torch test-nightly test-fast lint docs clean

demo: .venv/installed  ## Distil, export and prove a student on handwritten digits
	$(BIN)/keras-distill demo

test: .venv/installed-dev  ## Run the test suite, and say what was skipped and why
	$(PYTEST) -rs

test-long: .venv/installed-dev  ## Run from end to end, and the rest of sweeps
	$(PYTEST) -rs -m "long and not nightly"

test-jax: .venv/installed-dev  ## Run the tests of the JAX backend; MARKS=nightly the long ones
	KERAS_BACKEND=jax $(PYTEST) -rs tests/jax_backend $(if $(MARKS),-m $(MARKS))

test-torch: .venv/installed-dev  ## Run the tests of the PyTorch backend, where torch is installed
	KERAS_BACKEND=torch $(PYTEST) -rs tests/jax_backend $(if $(MARKS),-m $(MARKS))

test-nightly: .venv/installed-dev  ## Run the long tests that `make test` leaves out; PART="-k" words
	$(PYTEST) -rs -m nightly $(if $(PART),-k "$(PART)")

test-fast: .venv/installed-dev  ## Test losses, matches, the Distiller and labels
	$(PYTEST) $(FAST)

lint: .venv/installed-dev  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed-dev  ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

bench-%: .venv/installed-dev  ## Run benchmarks/NAME.py
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python benchmarks/$(subst -,_,$*).py

clean:  ## Remove the environment and everything built
	rm -rf .venv build dist site runs *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo 'keras_distill needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.11 ...'; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt pyproject.toml | .venv/bin/python
	@echo 'Installing TensorFlow and the rest into .venv (about 2 GB, once) ...'
	$(PIP) -r requirements.txt
	$(PIP) --no-deps -e .
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	@echo 'Installing what the tests and checks need ...'
	$(PIP) --no-deps -r requirements-dev.txt  # All of them are listed; silero-vad asks for torch.
	@touch $@
