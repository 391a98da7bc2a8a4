# make demo and make test are all that is needed; both bring what is missing first.
# PYTHON=/path/to/python3.12 names the Python that .venv is made with.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint goldens docs clean

help:
	@echo "make demo     the whole loop on real data; results in runs/demo"
	@echo "make test     everything that must pass"
	@echo "make lint     style, types and import contract alone"
	@echo "make goldens  write the golden files anew, then show what changed"
	@echo "make docs     write the API reference anew"
	@echo "make setup    ngspice and .venv alone"
	@echo "make clean    remove caches and build products; .venv and runs stay"

setup:
	@scripts/setup

demo: setup
	.venv/bin/spicenn demo --out runs/demo

lint: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

test: lint
	.venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder

goldens: setup
	.venv/bin/pytest --regenerate
	git status --short tests

docs: setup
	.venv/bin/python scripts/api_reference.py

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
