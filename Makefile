# Two commands for a newcomer: `make demo` and `make test`. Both set up .venv if need be.
PYTHON ?= python3
RUN := .venv/bin/

.PHONY: setup demo fleet test check bench bench-sweep plan-extras test-install test-full test-statistics \
	test-extras test-soak test-slurm test-ray clean

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(RUN)python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(RUN)python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch .venv/ready

# Compilers for GPUs and TPUs that are not here: an environment on top of .venv, which stays as it is.
PACKAGES := -c "import sysconfig; print(sysconfig.get_path('purelib'))"

plan-extras: .venv-plan/ready

.venv-plan/ready: .venv/ready requirements-plan.lock
	$(RUN)python -m venv --clear --without-pip .venv-plan
	echo "import site; site.addsitedir('$$($(RUN)python $(PACKAGES))')" > "$$(.venv-plan/bin/python $(PACKAGES))/on_top.pth"
	$(RUN)python -m pip --python .venv-plan/bin/python install --quiet --disable-pip-version-check --no-deps \
		-r requirements-plan.lock
	touch .venv-plan/ready

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
	$(RUN)pytest -m slow tests/models tests/training tests/inspection tests/data tests/launcher \
		tests/aot/test_aot.py --ignore=tests/launcher/soak

test-extras: plan-extras
	$(RUN)pytest -m slow -n 0 tests/aot

test-statistics: setup
	$(RUN)pytest -m slow tests/compare

test-soak: setup
	$(RUN)pytest -m slow -n 0 -s tests/launcher/soak

# Fetches the packages of a Slurm into the cache, and starts one of three nodes from there.
test-slurm: setup
	$(RUN)python -m tests.slurm.cluster
	$(RUN)pytest -m slow -n 0 tests/slurm

# A Ray of two nodes, started here.
test-ray: setup
	$(RUN)python -m pip install --quiet --disable-pip-version-check --editable '.[ray]'
	$(RUN)pytest -m slow -n 0 tests/ray

clean:
	rm -rf .venv .venv-plan build dist *.egg-info
