# Two commands work on a fresh machine: `make demo` installs lossprobe, `make test` also the libraries of the tests.
# constraints.txt pins the versions that are installed here; pyproject.toml has the ranges that users may install.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable

# Python keeps what it compiled, also where it is told not to: else each process that a test starts compiles lossprobe anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test thorough coverage agreement families lint bench wheel docs clean

demo: $(INSTALLED)
	$(BIN)/lossprobe demo -o lossprobe-demo

test: $(TESTABLE)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(COVERAGE)

# The tests that take long: simulations, pictures of odd data, every command in a hostile folder, the notebook.
thorough: $(TESTABLE)
	$(BIN)/python -m pytest -m thorough -n auto --maxprocesses 4 --dist loadfile

# The tests with line coverage; takes half as long again.
coverage:
	$(MAKE) test COVERAGE="--cov --cov-report=term"

# Compares the numbers with those of other tools from the package index, in an environment of their own.
agreement:
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[test,peers,gguf]"
	$(VENV)-peers/bin/python -m pytest tests/agreement

# Compares every causal family of the installed transformers with transformers itself; takes under half an hour.
families: $(TESTABLE)
	$(BIN)/python tests/families/sweep.py

lint: $(TESTABLE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Measures speed against the bare forward pass, on three model shapes; takes about half an hour.
bench: $(TESTABLE)
	$(BIN)/python tests/benchmarks/speed.py

# Builds the wheel, and tests it in an environment of its own, as users install it.
wheel: $(TESTABLE)
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv --clear $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd $(VENV)-wheel && bin/lossprobe --help && bin/lossprobe doctor && bin/lossprobe demo -o demo

# The pages of docs/ as a site in docs/site, made in an environment of its own; a link to a page that is not there is an error.
docs: $(INSTALLED)
	$(BIN)/python -m lossprobe.cli.reference docs/pages/reference
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --constraint constraints.txt mkdocs
	$(VENV)-docs/bin/mkdocs build --strict --config-file docs/mkdocs.yml

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(TESTABLE): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-wheel $(VENV)-peers $(VENV)-docs docs/site dist build lossprobe-demo .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
