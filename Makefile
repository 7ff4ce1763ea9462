# Two commands: make demo, make test. PYTHON picks the interpreter (3.11 or newer for the workflow), CORES the cores.
PYTHON ?= python3
CORES ?= all
VENV := .venv
SNAKEMAKE = snakemake --cores $(CORES) --workflow-profile workflow/profiles/local
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: demo test lint bench clean

demo: $(VENV)/installed
	$(SNAKEMAKE) --configfile workflow/demo.yaml
	@echo "The report: results/demo/paper/report.html"

test: lint
	pytest --numprocesses auto --dist loadfile --cov --cov-report=term:skip-covered

lint: $(VENV)/installed-dev
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	snakefmt --check Snakefile rules
	snakemake --lint --configfile workflow/demo.yaml

bench: $(VENV)/installed-dev
	for benchmark in benchmarks/bench_*.py; do python $$benchmark || exit 1; done

bench-%: $(VENV)/installed-dev
	python benchmarks/bench_$*.py

clean:
	rm -rf $(VENV) results

# torch comes first and alone: asked for exactly, pip takes one build of it and no other package asks for another.
$(VENV)/torch: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; run make PYTHON=python3.11 ...")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	python -m pip install --upgrade pip
	python -m pip install $(shell grep '^torch==' requirements.lock)
	touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml requirements.lock
	python -m pip install --constraint requirements.lock --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/torch pyproject.toml requirements.lock
	python -m pip install --constraint requirements.lock --editable '.[dev,slurm]'
	touch $@ $(VENV)/installed
