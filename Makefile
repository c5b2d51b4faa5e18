# Two commands do all set-up: `make run` and `make test`. They need Python 3.11 or newer, pip and
# make; everything they install goes into .venv. pip's own configuration (indexes, wheel folders,
# proxies) is used as it is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt --editable

.PHONY: help run test long lint architecture slow chaos cluster wheel-check clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*  ## ' Makefile | sed -e 's/:.*  ## /\t/' | expand -t 16

run: $(VENV)/run.stamp  ## install, then search CIDer's hyperparameters on the embedded corpus
	$(BIN)/cider-platform tune --dataset synthetic-mosei

test: lint  ## install with the test tools, then check style, types and behaviour
	$(BIN)/python -m pytest

lint: $(VENV)/dev.stamp  ## style and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

architecture: $(VENV)/dev.stamp  ## direction of imports, import costs, file sizes
	$(BIN)/python -m pytest tests/architecture

slow: $(VENV)/dev.stamp  ## the tests that take minutes
	$(BIN)/python -m pytest -m "slow and not gpu"

chaos: $(VENV)/dev.stamp  ## kill workers, drivers and Ray, fill disks; half an hour on 2 busy cores
	$(BIN)/python -m pytest -m chaos tests/chaos

cluster: $(VENV)/dev.stamp  ## a real Ray cluster on this machine (root, sshd, rsync, ip); about 5 minutes
	$(BIN)/python -m pytest -m cluster tests/cluster

# Of `slow` and `chaos` what a change is most likely to break, and all of `cluster`.
LONG := tests/chaos/test_grid_kills.py tests/chaos/test_faults.py tests/cluster \
	tests/cider_platform/submission/test_submit_real.py \
	tests/cider_platform/search/test_tune_cluster.py \
	tests/slow/test_searches_on_ray.py tests/slow/test_null_calibration.py

long: $(VENV)/dev.stamp  ## kills, faults, clusters, submissions and searches for real; about half an hour
	$(BIN)/python -m pytest -m "slow or chaos or cluster" $(LONG)

wheel-check: $(VENV)/dev.stamp  ## build a wheel, install it apart, run it from another folder
	$(BIN)/python -m pytest tests/architecture/test_wheel.py

clean:  ## remove the environment and what tools left behind
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# A bare Debian has no ensurepip: there the system's pip puts a pip into the empty environment
# (--python needs pip 22.3). A stamp and not bin/python is the target, because a failed attempt
# leaves a bin/python behind.
$(VENV)/venv.stamp:
	$(PYTHON) -m venv --clear $(VENV) || { \
	  echo "no ensurepip here: setting up $(VENV) with the pip of $(PYTHON)"; \
	  $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install pip; }
	touch $@

$(VENV)/run.stamp: pyproject.toml constraints.txt $(VENV)/venv.stamp
	$(INSTALL) .
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt $(VENV)/venv.stamp
	$(INSTALL) ".[dev]"
	touch $(VENV)/run.stamp $@
