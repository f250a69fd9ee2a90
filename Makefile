# Everything runs in .venv, which is made here and nowhere else.
PYTHON ?= python3
BIN := .venv/bin

# The interpreters of `make versions`.
PYTHONS ?= python3.11 python3.12 python3.13

.PHONY: demo test check tests long docs versions clean

demo: .venv/installed
	$(BIN)/python examples/demo.py

test: check tests

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

# A third worker computes while the tests of the others wait for processes that they started.
tests: .venv/installed
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile

long: .venv/installed
	$(BIN)/python -m pytest -m long

docs: .venv/installed
	$(BIN)/python docs/site/build.py site

# Minutes and gigabytes for each environment; writes the table in docs/install.md.
versions:
	$(PYTHON) tests/environments.py $(PYTHONS)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "synthpix_torch needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
