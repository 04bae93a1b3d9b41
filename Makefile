# Two commands for a newcomer: `make demo` and `make test`. Both set up .venv if need be.
PYTHON ?= python3
RUN := .venv/bin/

.PHONY: setup demo fleet test check bench bench-sweep test-install test-full test-statistics test-soak test-slurm test-ray clean

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(RUN)python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(RUN)python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch .venv/ready

demo: setup
	$(RUN)harness sweep experiment=attention

fleet: setup
	$(RUN)harness sweep experiment=colossus2

test: setup
	$(RUN)pytest -m "not slow"

check: setup
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)pyright
	$(RUN)pytest tests/test_imports.py -n 0

bench: setup
	$(RUN)python -m tests.bench

bench-sweep: setup
	$(RUN)python -m pip install --quiet --disable-pip-version-check hydra-joblib-launcher
	$(RUN)python -m tests.bench.sweep

test-install: setup
	tests/install.sh

# Slow proofs, each with a target of its own.
test-full: setup
	$(RUN)pytest -m slow tests/models tests/training tests/probe tests/data tests/fleet --ignore=tests/fleet/soak

test-statistics: setup
	$(RUN)pytest -m slow tests/compare

test-soak: setup
	$(RUN)pytest -m slow -n 0 -s tests/fleet/soak

# Fetches the packages of a Slurm into the cache, and starts one of three nodes from there.
test-slurm: setup
	$(RUN)python -m tests.slurm.cluster
	$(RUN)pytest -m slow -n 0 tests/slurm

# A Ray of two nodes, started here.
test-ray: setup
	$(RUN)python -m pip install --quiet --disable-pip-version-check --editable '.[ray]'
	$(RUN)pytest -m slow -n 0 tests/ray

clean:
	rm -rf .venv build dist *.egg-info
