# make demo   install, run four algorithms on the embedded workloads, print the leaderboard
# make test   install, run the tests; HYDRA=pre: with the next Hydra, in an environment of its own
PYTHON ?= python3
HYDRA  :=
VENV   := .venv$(if $(HYDRA),-hydra-$(HYDRA))
BIN    := $(VENV)/bin
DEMO   := results/demo
# Byte code is compiled when a module is first used, and kept: half of the installation time otherwise.
PIP    := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint docs install install-dev clean-results

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; say which with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
ifeq ($(HYDRA),pre)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --pre --upgrade hydra-core omegaconf
endif
	@touch $@

demo: install
	$(BIN)/python -m runner -m +experiment=demo
	$(BIN)/python -m runner.score $(DEMO)

test: install-dev
	$(BIN)/python -m pytest -n auto -m "not slow"

test-all: install-dev
	$(BIN)/python -m pytest -n auto

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: install-dev
	$(BIN)/python -m mkdocs build --strict

clean-results:
	@read -p "Delete every experiment under results/ but the published leaderboards? [y/N] " a; \
	  [ "$$a" = y ] && find results -mindepth 1 -maxdepth 1 ! -name leaderboards -exec rm -rf {} + || echo "kept"
