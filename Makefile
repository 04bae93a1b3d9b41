# Two commands for a newcomer: `make demo` and `make test`. Both set up .venv if need be.
PYTHON ?= python3
RUN := .venv/bin/
# One room of the tests: make test ROOM=compare. Workers pay where the rooms together take minutes.
ROOM ?=
WORKERS ?= 2
# A file stays with one worker. Files of few tests are not kept for the end: some of them take longest.
SHARED = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
NEWEST_PYTHON = $(shell tests/newest_python.sh)
NEWEST_TESTS := tests/test_private_names.py tests/core/test_cpu_flags.py tests/core/test_jax_range.py tests/parallel \
	tests/models/test_sequence_parallel.py tests/models/test_attention.py tests/training/test_compile_cache.py \
	tests/training/test_checkpointer.py tests/training/test_run.py tests/launcher/test_isolation_all.py tests/aot/test_aot.py

.DEFAULT_GOAL := help
.PHONY: locks check-locks release-notes help setup demo fleet test check house questions bench bench-quick bench-sweep bench-start plan-extras docs test-install test-full \
	test-data test-statistics test-docs test-extras test-gpu test-newest test-fuzz test-soak test-slurm test-ray test-trackers test-web notebooks test-notebooks clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: .venv/ready  ## .venv with the locked packages

.venv/ready: requirements.lock pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(RUN)python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(RUN)python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch .venv/ready

# Compilers for GPUs and TPUs that are not here: an environment on top of .venv, which stays as it is.
PACKAGES := -c "import sysconfig; print(sysconfig.get_path('purelib'))"

plan-extras: .venv-plan/ready  ## compilers for GPUs and TPUs that are not here, in .venv-plan

.venv-plan/ready: .venv/ready requirements-plan.lock
	$(RUN)python -m venv --clear --without-pip .venv-plan
	echo "import site; site.addsitedir('$$($(RUN)python $(PACKAGES))')" > "$$(.venv-plan/bin/python $(PACKAGES))/on_top.pth"
	$(RUN)python -m pip --python .venv-plan/bin/python install --quiet --disable-pip-version-check --no-deps \
		-r requirements-plan.lock
	touch .venv-plan/ready

# The documentation site: Sphinx in an environment on top of .venv. Its lock is that of the extra `docs`, less .venv's.
docs: .venv-docs/ready  ## the documentation site, in docs/_build/html
	rm -rf docs/_build
	.venv-docs/bin/python -m sphinx -W --keep-going -q -j 2 -c docs . docs/_build/html

.venv-docs/ready: .venv/ready requirements-docs.lock
	$(RUN)python -m venv --clear --without-pip .venv-docs
	echo "import site; site.addsitedir('$$($(RUN)python $(PACKAGES))')" > "$$(.venv-docs/bin/python $(PACKAGES))/on_top.pth"
	$(RUN)python -m pip --python .venv-docs/bin/python install --quiet --disable-pip-version-check --no-deps \
		-r requirements-docs.lock
	touch .venv-docs/ready

# uv.lock holds every extra; the two others what `make setup` and `make test-newest` install. The last JAX of Python
# 3.11 is 0.10.2.
COMPILE := $(RUN)uv pip compile pyproject.toml --quiet --universal --extra dev --no-annotate --no-header

locks: setup  ## uv.lock and the locks of .venv and .venv-newest, from pyproject.toml
	$(RUN)python -m pip install --quiet --disable-pip-version-check uv
	$(RUN)uv lock
	$(COMPILE) --python-version 3.11 --output-file requirements.lock
	$(COMPILE) --python-version 3.12 --output-file requirements-newest.lock

check-locks: setup  ## does uv.lock still answer pyproject.toml?
	$(RUN)python -m pip install --quiet --disable-pip-version-check uv
	$(RUN)uv lock --check

.venv-newest/ready: requirements-newest.lock pyproject.toml setup.py
	@test -n "$(NEWEST_PYTHON)" || { echo "No Python 3.13 or 3.12 is here, which the newest JAX needs." >&2; exit 1; }
	$(NEWEST_PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-newest.lock
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch .venv-newest/ready

demo: setup  ## train 27 small language models, print the verdict (2 minutes)
	$(RUN)harness sweep experiment=attention

fleet: setup  ## seven unequal models at once on eight simulated devices
	$(RUN)harness sweep experiment=colossus2

test: setup  ## the quick tests; ROOM=compare: those of one room
	$(RUN)pytest -m "not slow" $(SHARED) $(addprefix tests/,$(ROOM))

check: setup  ## linters, types, imports
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)pyright
	$(RUN)pytest tests/test_imports.py tests/test_house.py

house: setup  ## rooms, imports, names and docstrings, measured
	$(RUN)python -m tests.house

questions: setup  ## every question of experiments/questions vetted and trained a few steps, and counted
	$(RUN)python -m tests.questions --workers $(WORKERS)

# The lines of PyTorch need `.venv/bin/python -m pip install torch==2.13.0`.
bench: setup  ## speed, as ratios within one run with their quartiles
	$(RUN)python -m tests.bench

bench-quick: setup  ## steps, a cold and a warm start, a save and a restore, in two minutes
	$(RUN)python -m tests.bench --quick

bench-sweep: setup  ## eight runs against Hydra's own launchers, and the demo against cold starts
	$(RUN)python -m pip install --quiet --disable-pip-version-check hydra-joblib-launcher
	$(RUN)python -m tests.bench.sweep

bench-start: setup  ## memory of a start of 1 B parameters in two processes; needs 20 GiB
	$(RUN)python -m tests.bench.start

test-install: setup  ## wheel and editable install, from outside the repository
	tests/install.sh

# Slow proofs, each with a target of its own.
test-full: setup  ## every mechanism in every way of executing it
	$(RUN)pytest --optimized $(SHARED) tests/models tests/parallel tests/training tests/inspection
	$(RUN)pytest --optimized -m slow $(SHARED) tests/config tests/data tests/launcher tests/cli \
		tests/aot/test_aot.py --ignore=tests/launcher/soak --ignore=tests/data/scale

# AB_TEST_GB=4 makes the corpora larger (1), AB_TEST_FOLDER=FOLDER makes them elsewhere.
test-data: setup  ## a corpus of 1 GB and tokens of 20 GB, made on the spot; formats beside their own libraries
	$(RUN)python -m pip install --quiet --disable-pip-version-check --editable '.[formats,remote]'
	$(RUN)pytest -m "not slow" tests/data/formats tests/data/remote tests/docs/test_data.py
	$(RUN)pytest -m slow -s tests/data/scale

test-extras: plan-extras  ## the compilers of plan-extras
	$(RUN)pytest -m slow tests/aot

# What a new JAX has broken before, or could: sharding, kernels, checkpoints, stored programs, a sweep, lowerings.
test-newest: .venv-newest/ready  ## a choice of the quick tests with the newest JAX; needs Python 3.13 or 3.12
	.venv-newest/bin/pytest -m "not slow" $(SHARED) $(NEWEST_TESTS)

test-statistics: setup  ## the acceptance table of the statistics, in full
	$(RUN)pytest -m slow $(SHARED) tests/compare --ignore=tests/compare/test_fuzz.py

test-docs: docs  ## every command that the documents print, and every link of their site
	$(RUN)pytest -m slow -n $(WORKERS) tests/docs

# AB_WEB_UPDATES=300 makes the simulated hour shorter. Without chromium and chromedriver it says so.
test-web: setup  ## the live page in a headless browser, with a sweep at work
	$(RUN)python -m pip install --quiet --disable-pip-version-check selenium
	$(RUN)pytest -m slow -s -rs tests/web

test-fuzz: setup  ## 5,000 malformed sweeps through compare, watch, diff and plan
	$(RUN)pytest -m slow -n $(WORKERS) tests/compare/test_fuzz.py

test-soak: setup  ## a real sweep under 200 random faults
	$(RUN)pytest -m slow -s tests/launcher/soak

test-flips: setup  ## 200 random bit flips over every kind of file
	$(RUN)python -m tests.flips

test-gpu: setup  ## a pair of 124 M parameters on one accelerator, in five minutes; writes docs/gpu.md
	$(RUN)python -m tests.gpu

# Fetches the packages of a Slurm into the cache, and starts one of three nodes from there.
test-slurm: setup  ## through a real Slurm, started here
	$(RUN)python -m tests.slurm.cluster
	$(RUN)pytest -m slow tests/slurm

# A Ray of two nodes, started here.
test-ray: setup  ## through a real Ray, started here
	$(RUN)python -m pip install --quiet --disable-pip-version-check --editable '.[ray]'
	$(RUN)pytest -m slow tests/ray

release-notes:  ## what CHANGELOG.md says of VERSION, otherwise of this one
	@awk -v version="$(VERSION)" '/^## / { shown = $$2 == version } shown { print; lines++ } END { exit !lines }' \
		CHANGELOG.md || { echo "CHANGELOG.md has no section $(VERSION)." >&2; exit 1; }

notebooks: setup  ## docs/notebooks executed, and their outputs written again
	$(RUN)python -m tests.notebooks

test-notebooks: setup  ## a sweep in a real kernel that is interrupted, continued, and killed
	$(RUN)pytest -m slow tests/api

# On top of .venv, which stays as it is.
.venv-trackers/ready: .venv/ready pyproject.toml
	$(RUN)python -m venv --clear --without-pip .venv-trackers
	echo "import site; site.addsitedir('$$($(RUN)python $(PACKAGES))')" > "$$(.venv-trackers/bin/python $(PACKAGES))/on_top.pth"
	$(RUN)python -m pip --python .venv-trackers/bin/python install --quiet --disable-pip-version-check \
		--editable '.[tensorboard,wandb,trackio,mlflow]'
	$(RUN)python -m pip --python .venv-trackers/bin/python install --quiet --disable-pip-version-check --no-deps \
		--ignore-installed pytest
	touch .venv-trackers/ready

test-trackers: .venv-trackers/ready  ## the packages of the trackers, offline, and read back
	.venv-trackers/bin/pytest -m slow tests/trackers

clean:  ## remove the environments and builds
	rm -rf .venv .venv-trackers .venv-plan .venv-docs .venv-newest docs/_build build dist *.egg-info
