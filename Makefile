# `make` alone lists the targets. Each runs one command of .venv, which is set up first if needed.
# .venv belongs to the Python version of its set-up; PYTHON=python3.13 uses .venv-3.13 if .venv has another version.

.DEFAULT_GOAL := help
LOCK := requirements$(if $(shell command -v nvidia-smi 2>/dev/null),-gpu).lock
VENV := .venv
ifdef PYTHON
VERSION := $(shell '$(PYTHON)' -c 'import sys; print(*sys.version_info[:2], sep=".")' 2>/dev/null)
VENV := $(if $(filter-out %/python$(VERSION),$(wildcard .venv/lib/python*)),.venv-$(VERSION),.venv)
endif
READY := $(VENV)/ready
BIN := $(VENV)/bin
LOWEST := $(VENV)-lowest
EXTRAS := --extra dev --extra cmaes --extra jax --extra cluster
UV_INSTALL := $(BIN)/uv pip install --python $(BIN)/python

# The variables that a command line may set, for any target and for each (sweep-cnn is a sweep); another one would change
# nothing. A make that this one starts has the same command line for another target.
OF_ANY := BIN LOCK PYTHON SHELL VENV
OF_WORKERS := WORKERS REUSE EXECUTOR ADDRESS ARGS
OF_sweep := TRIALS BUDGET ENGINE SAMPLER PRUNER PROFILE SEED PRECISION $(OF_WORKERS)
OF_verdict := TOP SEEDS EPOCHS BUDGET $(OF_WORKERS)
OF_ablate := SEEDS $(OF_WORKERS)
OF_baselines := SEEDS PROFILE PRECISION $(OF_WORKERS)
OF_report := OUT ARGS
OF_compare := STUDIES ARGS
OF_gpu-wheels := OUT HAVE ARGS
OF_ui := PORT ARGS
OF_storm := MINUTES SEED ARGS
OF_lock := UPGRADE
OF_data := ARGS
OF_leaderboard := ARGS
OF_status := ARGS
OF_doctor := ARGS
OF_test := ARGS
GOALS := $(or $(MAKECMDGOALS),help)
ALLOWED := $(sort $(OF_ANY) $(foreach goal,$(GOALS),$(OF_$(goal)) $(OF_$(firstword $(subst -, ,$(goal))))))
GIVEN := $(strip $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name))))
UNKNOWN := $(filter-out $(ALLOWED),$(GIVEN))
ifeq ($(MAKELEVEL),0)
ifneq ($(UNKNOWN),)
$(error $(firstword $(UNKNOWN)) is not a variable of `make $(GOALS)`; allowed: $(ALLOWED))
endif
endif
ifneq ($(filter-out yes no,$(REUSE))$(word 2,$(REUSE)),)
$(error REUSE is $(REUSE); allowed: yes, no)
endif

# Variables become flags (TRIALS=40 is --trials 40, REUSE=no is --no-reuse), quoted for the shell; ARGS= is passed on
# unchanged.
quoted = '$(subst ','\'',$1)'
flag = $(if $($1),--$2 $(call quoted,$($1)))
WORKER_FLAGS = $(call flag,WORKERS,workers) $(call flag,EXECUTOR,executor) $(call flag,ADDRESS,address) \
	$(if $(filter no,$(REUSE)),--no-reuse) $(ARGS)
SWEEP_FLAGS = $(call flag,TRIALS,trials) $(call flag,BUDGET,budget) $(call flag,ENGINE,engine) \
	$(call flag,SAMPLER,sampler) $(call flag,PRUNER,pruner) $(call flag,PROFILE,profile) \
	$(call flag,SEED,seed) $(call flag,PRECISION,precision) $(WORKER_FLAGS)
VERDICT_FLAGS = $(call flag,TOP,top) $(call flag,SEEDS,seeds) $(call flag,EPOCHS,epochs) $(call flag,BUDGET,budget) \
	$(WORKER_FLAGS)
BASELINE_FLAGS = $(call flag,SEEDS,seeds) $(call flag,PROFILE,profile) $(call flag,PRECISION,precision) $(WORKER_FLAGS)

.PHONY: help setup data baselines leaderboard compare status doctor gpu-check gpu-wheels ui test test-faults test-lowest storm lint \
	audit lock systems clean

help:
	@awk -F ': .*## ' '/^[a-z%-]+: .*## / { sub(/%/, "NAME", $$1); printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## install everything into .venv; other targets do this if needed (PYTHON=)
	@echo "$(VENV) is set up"

data: $(READY) ## download MNIST and verify its contents
	$(BIN)/harness data fetch $(ARGS)

sweep-cnn: $(READY) ## search around the documented CNN (TRIALS= BUDGET= ENGINE= SAMPLER= PRUNER= PROFILE= WORKERS= SEED= PRECISION= REUSE= EXECUTOR= ADDRESS=)
sweep-fc: $(READY) ## search around the documented fully connected network (same variables)
sweep-%: $(READY) ## run the search of sweeps/NAME.toml (same variables)
	$(BIN)/harness sweep $* $(SWEEP_FLAGS)

baselines: $(READY) ## train the two documented networks (SEEDS= PROFILE= PRECISION= WORKERS= REUSE= EXECUTOR= ADDRESS=)
	$(BIN)/harness baseline all $(BASELINE_FLAGS)

verdict-cnn: $(READY) ## test whether the best trials of sweep-cnn are better than the baseline (TOP= SEEDS= EPOCHS= BUDGET= WORKERS= REUSE= EXECUTOR= ADDRESS=)
verdict-fc: $(READY) ## the same for sweep-fc (same variables)
verdict-%: $(READY) ## the same for the search of sweeps/NAME.toml, or for a study (same variables)
	$(BIN)/harness verdict $* $(VERDICT_FLAGS)

report-cnn: $(READY) ## write a report on sweep-cnn, one HTML file (OUT=)
report-fc: $(READY) ## the same for sweep-fc
report-%: $(READY) ## the same for the search of sweeps/NAME.toml, or for a study
	$(BIN)/harness report $* $(call flag,OUT,out) $(ARGS)

ablate-%: $(READY) ## train the best of a search without each of its changes (SEEDS= WORKERS= REUSE= EXECUTOR= ADDRESS=)
	$(BIN)/harness ablate $* $(call flag,SEEDS,seeds) $(WORKER_FLAGS)

leaderboard: $(READY) ## print the ranking and export it as CSV
	$(BIN)/harness leaderboard $(ARGS)

compare: $(READY) ## compare searches: lowest error against device time (STUDIES='A B')
	$(BIN)/harness compare $(STUDIES) $(ARGS)

status: $(READY) ## show the progress of each study
	$(BIN)/harness status $(ARGS)

doctor: $(READY) ## check the installation (ARGS='--audit STUDY' audits a study)
	$(BIN)/harness doctor $(ARGS)

gpu-check: $(READY) ## try each GPU for up to six minutes: what holds, what does not, measurements
	$(BIN)/harness doctor --gpu

gpu-wheels: $(READY) ## collect what a GPU machine without a network lacks for gpu-check (OUT= HAVE=)
	$(BIN)/python scripts/gpu_wheels.py $(call quoted,$(or $(OUT),gpu-wheels)) $(call flag,HAVE,have) $(ARGS)

ui: $(READY) ## browse the runs in MLflow (PORT=)
	$(BIN)/harness ui $(call flag,PORT,port) $(ARGS)

test: $(READY) ## run the tests except the slow ones (PYTHON=python3.13 selects the Python)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

test-faults: $(READY) ## run the slow tests, two files at a time: crashes, kills, full disks
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadfile $(ARGS)

test-lowest: $(LOWEST)/ready ## run the tests with the lowest versions that pyproject.toml allows, in .venv-lowest
	$(LOWEST)/bin/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

$(LOWEST)/ready: pyproject.toml | $(READY)
	rm -rf $(LOWEST)
	$(BIN)/uv venv --quiet --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --compile-bytecode --resolution lowest-direct $(EXTRAS) \
		--requirement pyproject.toml --editable .
	touch $@

storm: $(READY) ## kill coordinators, workers and MLflow at random, then audit the studies (MINUTES=10 SEED=)
	$(BIN)/python tests/storm.py $(call flag,MINUTES,minutes) $(call flag,SEED,seed) $(ARGS)

lint: $(READY) ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin harness baselines

# The GPU lock holds all of the other one. What pip-audit finds is its own table; why it could not look, one line of ours.
PIP_AUDIT = $(BIN)/pip-audit --strict --progress-spinner off --require-hashes --disable-pip --requirement requirements-gpu.lock
audit: $(READY) ## look for insecure code and, over the network, for known vulnerabilities of the locked packages
	$(BIN)/ruff check --select S --ignore S603 harness baselines
	@{ said=$$($(PIP_AUDIT) 2>&1 1>&3); } 3>&1 || { case "$$said" in \
		*Found*known\ vulnerabilit*) echo "$$said" ;; \
		*) echo "make audit: could not look for known holes; is the package index in reach?" \
			"($$(echo "$$said" | tail -n 1 | cut -c 1-200))" ;; \
	esac >&2; exit 1; }

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header $(if $(UPGRADE),--upgrade) $(EXTRAS) pyproject.toml
lock: $(READY) ## update the lock files from pyproject.toml (UPGRADE=1 takes newer versions)
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --extra gpu --constraint requirements.lock --output-file requirements-gpu.lock
	$(MAKE) systems

# By the package index, without installing anything: each locked package has a wheel for each system and Python.
SYSTEMS := x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu aarch64-apple-darwin
PYTHON_VERSIONS := 3.11 3.12 3.13
systems: $(READY) ## check that the lock installs on each supported system and Python (needs a network)
	@for system in $(SYSTEMS); do for python in $(PYTHON_VERSIONS); do \
		$(UV_INSTALL) --dry-run --quiet --python-platform $$system --python-version $$python --only-binary :all: \
			--require-hashes --target build/none --requirement requirements.lock || exit 1; \
		echo "requirements.lock installs on $$system with Python $$python"; \
	done; done

clean: ## remove environments and caches; results in mlruns/ stay
	rm -rf .venv .venv-* build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find baselines harness tests -name __pycache__ -prune -exec rm -rf {} +

# Set-up: find a Python, then install in a second make that holds a lock, so that two targets started at once
# set up once. The file `ready` is written last: a set-up that was interrupted starts again from nothing.
PYTHONS := $(if $(PYTHON),'$(PYTHON)',python3 python3.13 python3.12 python3.11)
USABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
HOLD_LOCK := import fcntl, os, sys; lock = os.open("Makefile", os.O_RDWR); fcntl.flock(lock, fcntl.LOCK_EX); \
	os.set_inheritable(lock, True); os.execvp(sys.argv[1], sys.argv[1:])

ifndef FOUND_PYTHON
$(READY): pyproject.toml $(LOCK)
	@for python in $(PYTHONS); do \
		if "$$python" -c '$(USABLE)' 2>/dev/null; then \
			exec "$$python" -c '$(HOLD_LOCK)' $(MAKE) --silent --no-print-directory $@ FOUND_PYTHON="$$python" VENV=$(VENV); \
		fi; \
	done; \
	echo "make: none of these is Python 3.11, 3.12 or 3.13 with its venv module: $(PYTHONS);" \
		"install one, or name it with PYTHON=" >&2; exit 1
else
$(READY): pyproject.toml $(LOCK)
	test -f $@ && $(BIN)/python -c '' || rm -rf $(VENV)
	rm -f $@
	test -d $(VENV) || echo "Setting up $(VENV) from $(LOCK), once: about a minute, 1 GB to download" >&2
	test -d $(VENV) || '$(FOUND_PYTHON)' -m venv $(VENV)
	sed -n '/^uv==/,/^    #/p' $(LOCK) >$(VENV)/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(VENV)/uv.txt
	$(UV_INSTALL) --quiet --require-hashes --compile-bytecode --requirement $(LOCK)
	$(UV_INSTALL) --quiet --no-deps --no-build-isolation --editable .
	touch $@
endif
