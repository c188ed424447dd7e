# `make help` lists what people do here. The environment is set up on the way, and again only when the lock changes.
.DEFAULT_GOAL := help
.SHELLFLAGS := -eu -c
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PORT ?= 3000
export BENTOML_DO_NOT_TRACK := True
unexport $(filter MLFLOW_%,$(.VARIABLES))     # what a shell holds for other projects does not steer this one
export MLFLOW_DISABLE_TELEMETRY := true
export GOMP_SPINCOUNT ?= 1000                 # as `fieldbook` has it, also for the tests

.PHONY: help repro test check site lab tune serve monitor tick replay bench container export runs lint lock clean env

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

repro: env  ## run the pipeline on all cores: to the built Bento first, then studies and pages; only what has changed
	@$(BIN)/fieldbook repro

test: repro  ## run the tests that a push needs: the notebooks' own, pipeline, server and container; about four minutes
	@$(PYTEST) -m "not slow"

check: repro  ## run every test, also the long ones; about twenty-five minutes (ONLY=slow: those that `make test` leaves out)
	@$(PYTEST) $(if $(ONLY),-m "$(ONLY)")

PYTEST = $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

site: env  ## all notebooks as pages, run from top to bottom -> data/site/; only what has changed
	@$(BIN)/fieldbook site

lab: env  ## edit the notebooks in JupyterLab
	@cd notebooks && ../$(BIN)/jupyter lab

export: env  ## notebooks -> modules; strips outputs
	@grep -lsE '"outputs": \[$$|"execution_count": [0-9]' notebooks/*/*.ipynb | xargs -r $(BIN)/nbstripout --keep-id
	@$(BIN)/fieldbook export

tune: env  ## search hyper-parameters, as in `make tune MODEL=boosting TRIALS=30 JOBS=2`; goes on where it stopped
	@$(BIN)/dvc repro -q features
	@$(BIN)/fieldbook tune $(or $(MODEL),$(error say which model, as in: make tune MODEL=boosting)) \
	  $(addprefix --trials=,$(TRIALS)) $(addprefix --jobs=,$(JOBS)) $(addprefix --name=,$(NAME)) $(if $(FORCE),--force)

serve: env  ## start the built Bento on http://localhost:3000 (PORT=... for another)
	@[ -d data/bento ] || $(MAKE) repro
	@$(BIN)/fieldbook ready
	@echo "http://localhost:$(PORT)   predictions are logged in logs/   Ctrl+C stops"
	@BENTOML_HOME="$(CURDIR)/tmp/bentoml" BENTOML_CONFIG="$(CURDIR)/conf/deploy/bentoml.yaml" FIELDBOOK_LOGS="$(CURDIR)/logs" \
	  FIELDBOOK_MODELS="$(CURDIR)/models" \
	  $(BIN)/bentoml serve "$(CURDIR)/data/bento" --host 127.0.0.1 --port $(PORT)

bench: env  ## time the Bento next to other servers with the same champion, on this machine; some four minutes
	@[ -d data/bento ] || $(MAKE) repro
	@$(BIN)/fieldbook bench

monitor: env  ## what the prediction log says: is the model still right, and if not, why -> logs/monitor/ (LOGS=... for another)
	@$(BIN)/fieldbook monitor "$(or $(LOGS),logs)"

tick: env  ## take in what is new, monitor, learn anew if due, judge what is tried; a scheduler calls it: conf/deploy/tick.cron
	@$(BIN)/fieldbook tick

replay: env  ## play the months after training -> logs/replay/ (FROM=2013-04-01 TO=... MODEL=models/... HTTP=hours LOGS=... TICK=1 monitors and learns anew each night); goes on
	@[ -d data/bento ] || $(MAKE) repro
	@$(BIN)/fieldbook replay $(addprefix --from=,$(FROM)) $(addprefix --to=,$(TO)) $(addprefix --model=,$(MODEL)) \
	  $(addprefix --http=,$(HTTP)) $(addprefix --log=,$(LOGS)) $(if $(TICK),--tick)

container: env  ## build the image of the Bento, with docker or podman
	@[ -d data/bento ] || $(MAKE) repro
	@$(BIN)/fieldbook ready
	@conf/deploy/container.sh

runs: env  ## look at all that was tried, in MLflow's pages
	@$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1

lint: env  ## check the style of hand-written code and of notebooks
	@$(BIN)/ruff check . && $(BIN)/ruff format --check $(HAND_WRITTEN)

HAND_WRITTEN = src/fieldbook/cli.py src/fieldbook/operate.py src/fieldbook/stages.py src/fieldbook/__*.py src/__main__.py src/hydra_plugins \
  src/fieldbook/pages/rivals tests notebooks/conftest.py

lock: env  ## resolve pyproject.toml into requirements.lock and the container's lock
	@$(LOCK) --group dev --group serve pyproject.toml -o requirements.lock
	@$(LOCK) --group serve -c requirements.lock -o conf/deploy/requirements.lock

LOCK = $(BIN)/uv pip compile -q --universal --fork-strategy fewest --python-version 3.11 --no-emit-index-url --no-annotate \
  --no-header --generate-hashes

clean:  ## remove the environment, all outputs and DVC's cache; MLflow's record and the prediction logs stay
	@rm -rf .venv .dvc/cache .dvc/tmp tmp dvc_plots .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	@git clean -fdXq data src tests notebooks

# The lock is compared by content: a checkout changes times, not what is needed. Works offline once it has worked.
env:  ## set up the environment; all other commands do it by themselves
	@cmp -s requirements.lock .venv/requirements.lock || $(MAKE) --no-print-directory setup
	@[ -L .venv ] || grep -qs "^relocatable = true" .venv/pyvenv.cfg || grep -qsF "$(CURDIR)/.venv" .venv/bin/activate || \
	  { echo "fieldbook: .venv was set up in another folder, and its commands would run there: run make setup" >&2; exit 1; }

.PHONY: setup
setup:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up .venv (the first time takes a minute or two)"
	@$(PYTHON) -m venv --clear .venv
	@echo "relocatable = true" >> .venv/pyvenv.cfg  # commands look for their Python beside them: a project may be moved
	@$(BIN)/pip install -qq --disable-pip-version-check "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"
	@VIRTUAL_ENV=.venv $(BIN)/uv pip sync -q --compile-bytecode requirements.lock
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	@for path in .venv/lib/python*/site-packages/__editable__.fieldbook-*.pth; do echo ../../../../src > "$$path"; done
	@sed -i.bak 's|VIRTUAL_ENV="\{0,1\}/.*|VIRTUAL_ENV="$$(cd "$$(dirname "$${BASH_SOURCE[0]:-$$0}")/.." \&\& pwd)"|' .venv/bin/activate
	@cp requirements.lock .venv/requirements.lock
