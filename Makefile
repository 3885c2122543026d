# make train                                    a first model: handwritten digits, no download
# make train CONFIG=configs/cifar100_smallcnn.py ARGS="--config.seed=1"
# make test                                     the whole suite, in WORKERS=2 processes
# make test-fast                                its parts that need little compilation
# make results                                  tables and plots of the README and docs/ from their files

PYTHON ?= python3
VENV ?= .venv
CONFIG ?= configs/digits_cnn.py
ARGS ?=
WORKERS ?= 2

PYTEST = $(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile
FAST = $(wildcard tests/config) tests/data tests/metrics tests/models tests/optim \
  tests/weights tests/test_short_run.py

.PHONY: train test test-fast results lint format clean

train: $(VENV)/.installed
	$(VENV)/bin/python -m jaxvision.main --config=$(CONFIG) $(ARGS)

test: $(VENV)/.installed-test
	$(PYTEST) $(ARGS)

test-fast: $(VENV)/.installed-test
	$(PYTEST) -m 'not slow and not long' $(FAST) $(ARGS)

results: $(VENV)/.installed
	$(VENV)/bin/python experiments/results.py
	$(VENV)/bin/python benchmarks/scaling.py --results=benchmarks/results/scaling.json \
	  --write=docs/scaling.md
	$(VENV)/bin/python benchmarks/growth.py --results=benchmarks/results/growth_cpu.json \
	  --write=docs/growth.md

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# Installed again when pyproject.toml changes, and only then.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
