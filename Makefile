PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test fuzz lint bench docs clean

# A teacher, and a student of it with KD alone and with the manifold term. What is finished is not run again: a second
# `make demo` shows the results, and one that was stopped goes on.
demo: .venv/ready
	@$(BIN)/isometry compare --config recipes/digits/demo.yaml --out runs/demo

# The tests compute little and start many processes, which one thread each serves best. As many at a time as there are
# cores, up to 8: each worker imports everything again, and takes 2 GB at its worst.
test: lint
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

# Other options, folders and damaged runs than the suite tries, each time; FUZZ is their number for each test.
fuzz: .venv/ready
	@FUZZ=$${FUZZ:-1000} OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical tests/test_hostile_fuzz.py

lint: .venv/ready
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary

bench: .venv/ready
	@$(BIN)/python benchmarks/relations.py
	@$(BIN)/python benchmarks/growth.py
	@OMP_WAIT_POLICY=passive $(BIN)/python benchmarks/pruning.py
	@$(BIN)/python benchmarks/step.py
	@$(BIN)/python benchmarks/step.py --pair resnet
	@$(BIN)/python benchmarks/teacher_cache.py
	@$(BIN)/python benchmarks/loading.py

# site/index.html opens from the disk, and nothing in it is fetched from elsewhere.
docs: .venv/ready
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "Open site/index.html, or with its search: python3 -m http.server -d site"

# Runs are kept.
clean:
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready: pyproject.toml
	@echo "Setting up .venv, once: torch and its companions are large"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "isometry needs Python 3.11 or newer; make PYTHON=...")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
