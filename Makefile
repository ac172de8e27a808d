# make demo    installs into .venv and makes the main figure of the embedded default
# make all     everything of the embedded default
# make test    the whole test suite
# make test-faults  power cuts, kills, damages, full disks: all of them; `make test` has some of each
# make quick   the arithmetic and the settings, under a minute
# make docs    the documentation as pages, in build/docs/html
# make test-browser  the explorer and the report in Chromium; as root, with Debian's packages
# make test-slurm  the workflow on a SLURM of two nodes, on this machine; as root, with Debian's packages
# make lint    style, types, workflow
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= $(shell $(PYTHON) -c "import os; print(os.cpu_count())")

.PHONY: demo all quick docs test test-faults test-browser test-slurm lint bench clean

demo: $(VENV)/installed
	@$(BIN)/snakemake --cores $(CORES) results/cka/all.png
	@echo "The figure: results/cka/all.png"

all: $(VENV)/installed
	@$(BIN)/snakemake --cores $(CORES)
	@echo "The figures, which docs/gallery.md explains, with further ones beside them:"
	@ls results/*/all.png

quick: $(VENV)/installed
	$(BIN)/python -m pytest -q -n $(CORES) --dist loadfile --no-loadscope-reorder -m "not slow" \
		tests/numerics tests/test_config.py tests/test_settings.py tests/test_tables.py tests/test_text.py \
		$(filter-out %_job.py %figures.py,$(shell grep -L tests.figures tests/analyses/*/test_*.py))

docs: $(VENV)/installed
	@$(BIN)/python docs/site/build.py build/docs

# Coverage makes tests take nearly half as long again: it is counted where CI=true.
ifeq ($(CI),true)
COVERAGE := --cov=vitfeat --cov-report=
endif

# The tests of a file run in one process, which makes their models and stores once.
test: $(VENV)/installed
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder $(COVERAGE)
ifeq ($(CI),true)
	@echo "Coverage of vitfeat: $$($(BIN)/python -m coverage report --format=total) %, without workflows' jobs"
endif

# PART=kills is tests/faults/test_kills.py alone. Some need root, and are skipped without it.
PART ?= *
test-faults: $(VENV)/installed
	VITFEAT_FAULTS=full $(BIN)/python -m pytest -q -n $(CORES) --dist load tests/faults/test_$(PART).py

# The page that is committed must be what its source gives: that needs npm, and its registry or cache.
test-browser: $(VENV)/installed
	for program in chromium npm; do which $$program > /dev/null || { \
		apt-get update --quiet && \
		DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends $$program; } || exit; done
	cd explorer && npm ci --no-audit --no-fund
	$(BIN)/python -m pytest -m browser tests/explorer
	$(BIN)/python -m pytest -m browser tests/workflow/test_report.py

test-slurm: $(VENV)/installed
	which slurmctld slurmd munged > /dev/null || { \
		apt-get update --quiet && \
		DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends slurm-wlm munge; }
	$(BIN)/python -m pytest -m slurm tests/slurm

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
