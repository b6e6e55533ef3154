# On a new machine, `make demo` and `make test` install everything that they need.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# parallel tests: two more than the number of cores, because end-to-end tests wait for processes; at most eight
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -lt 7 ] && echo $$((n + 2)) || echo 8)
# pip compiles byte code on one core; a package may contain files that are no valid Python, which does not matter
BYTE_CODE = $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true

.PHONY: help demo test doctest docs torture fuzz check format setup install uninstall wheels clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.compiled ## replay the built-in record through the whole pipeline, with a live view
	@$(BIN)/ecgmon demo

test: $(VENV)/.tests $(VENV)/.compiled ## unit, property and end-to-end tests
	$(BIN)/python -m pytest -m 'not long and not serial' --numprocesses $(JOBS)
	$(BIN)/python -m pytest -m 'serial and not long'

doctest: $(VENV)/.tests $(VENV)/.compiled ## run every example in a docstring and in docs/
	$(BIN)/python -m pytest tests/test_docstrings.py

docs: $(VENV)/.docs ## build the documentation site in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

torture: $(VENV)/.tests $(VENV)/.compiled ## kill and freeze every role at random moments; compare what is stored
	$(BIN)/python -m tests.torture --kills 60 --seed 1
	$(BIN)/python -m pytest -m long

fuzz: $(VENV)/.tests $(VENV)/.compiled ## test with millions of damaged messages, records, checkpoints and configurations
	$(BIN)/python -m tests.fuzz --frames 1000000 --files 100000 --documents 10000 --seed 1 --jobs 2

check: $(VENV)/.tests ## linters, types, import direction
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.tests ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

setup: $(VENV)/.tests $(VENV)/.compiled ## make .venv with pinned dependencies, including those of tests and checks

# without PYTHON=, the installer chooses a Python that services can read
installer = DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" WHEELS="$(WHEELS)" PACKAGES="$(PACKAGES)" COMPILE="$(COMPILE)" \
	$(if $(filter file,$(origin PYTHON)),,PYTHON="$(PYTHON)") systemd/install.sh

install: ## as root: install or upgrade as services (DESTDIR, PREFIX, PYTHON, WHEELS)
	@$(installer) install

uninstall: ## as root: stop and remove the services; state and configuration stay
	@$(installer) uninstall

wheels: ## download the packages for a machine without a network; there: make install WHEELS=wheels
	@$(installer) wheels

$(VENV)/.runs: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else "ecgmon needs Python 3.11 or newer; this is %d.%d: make PYTHON=python3.11" % v[:2])'
	@echo "setting up $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	$(PIP) install --no-compile -r requirements.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@$(BYTE_CODE)
	@touch $@

# numba compiles a function again when its own file changes, but not when a function that it calls changes
$(VENV)/.compiled: $(VENV)/.runs $(wildcard models/*.py models/*/*.py pipelines/*.py pipelines/*/*.py)
	@find models pipelines -name '*.nb[ic]' -delete
	@$(BIN)/python -m ecgmon.pipelines.roles.warm_up
	@touch $@

$(VENV)/.tests: $(VENV)/.runs requirements-dev.txt
	$(PIP) install --no-compile -r requirements-dev.txt
	@$(BYTE_CODE)
	@touch $@

$(VENV)/.docs: $(VENV)/.runs requirements-docs.txt
	$(PIP) install -r requirements-docs.txt
	@touch $@

clean: ## remove the virtual environment and the files of tools
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
