# make demo    installs into .venv and runs the embedded default
# make test    the whole test suite
# make lint    style, types, workflow
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= $(shell $(PYTHON) -c "import os; print(os.cpu_count())")

.PHONY: demo test lint bench clean

demo: $(VENV)/installed
	$(BIN)/snakemake --cores $(CORES) --quiet rules progress
	@echo
	@echo "The figures:"
	@ls results/*/all.png; echo "and further ones beside them: docs/gallery.md says how to read each"

# The tests of a file run in one process, which makes their models and stores once.
test: $(VENV)/installed
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks

# The versions in constraints.txt are those that the tests ran with.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('vitfeat needs Python 3.11 or later: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .snakemake results/*
