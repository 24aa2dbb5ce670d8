# `make demo`, `make test` and `make test-all` install what they need into .venv first; PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The stamp's name is what was asked to be installed, so that an environment of the same contents is reused.
STAMP := $(VENV)/.installed-$(shell (pwd; cat pyproject.toml constraints.txt; grep ^__version__ deepenergy/__init__.py) | sha256sum | cut -c1-16)
SOURCES := deepenergy benchmarks examples tests training
# Two OpenMP threads on a busy two-core machine are ten times slower than one.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

# Two workers; one that runs out of tests takes some of the other's.
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist worksteal


.PHONY: style help install demo test test-all lint format bench clean

help:
	@echo "make demo | test | test-all | lint | format | bench | clean"

install: $(STAMP)

$(STAMP):
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first and by itself: nothing later may choose another build of it.
	@echo "installing torch (the largest download)"
	@$(PIP) install --quiet torch==2.13.0
	@echo "installing deepenergy and its tools"
	@$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@# Without its dependencies: its opencv-python would overwrite opencv-python-headless.
	@$(PIP) install --quiet --no-deps -c constraints.txt tqdm face-alignment
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(STAMP)
	$(BIN)/deepenergy demo --output out/demo

# What one waits for before a commit; ARGS=--cov=deepenergy adds a table of the lines that were run.
test: style
	$(PYTEST) -m "not slow" $(ARGS)

# What continuous integration runs.
test-all: lint
	$(PYTEST) $(ARGS)

style: $(STAMP)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

# pyright takes minutes.
lint: style
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(STAMP)
	$(BIN)/python -m benchmarks --check

clean:
	rm -rf build dist out .pytest_cache .ruff_cache .hypothesis
	find deepenergy tests benchmarks examples training -name __pycache__ -type d -prune -exec rm -rf {} +
