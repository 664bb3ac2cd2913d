# Everything that people and CI run. Each target installs what it needs.

# To use another interpreter: make … PYTHON=/path/to/python3.12
PYTHON ?=
BIN := .venv/bin
SCANNER := .venv-checkov
INSTALLED := .venv/.installed$(subst /,-,$(PYTHON))
# The local stack's ports, a provider in place of the sandbox, and Name=value parameters.
PORT ?= 4566
SANDBOX_PORT ?= 4580
PROVIDER_BASE_URL ?=
TEMPLATE_PARAMETERS ?=
# More arguments for pytest, as the shell reads them: make test-unit ARGS='-k "pacing or queue" -x'
ARGS ?=

# What people give a target is text. Neither make nor the shell may find commands in it, so make takes
# it as it is, and the recipes read it from the environment.
GIVEN := APPLY DROP_OLD HEADERS MAX MINUTES MORE NAME PAYLOAD PORT PROVIDER_BASE_URL QUEUE RAW REASON \
	RECIPIENTS REFERENCE SANDBOX_PORT STACK STAGE STATUS TEMPLATE_PARAMETERS TEXT THOROUGH YES
STAGE_CHOSEN := $(filter command line,$(origin STAGE))
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))
# The stack for the operator's commands: STACK=its-name, STAGE=prod, or the one of `make up`.
ifeq ($(STACK),)
override STACK := $(if $(STAGE_CHOSEN),smsgold-relay-$(STAGE))
endif
$(foreach name,$(GIVEN),$(if $($(name)),$(eval export $(name))))

export PATH := $(CURDIR)/$(BIN):$(PATH)
# Keep compiled files out of the folders that the build packs and hashes.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.local/pycache
# Keep the SAM CLI's state in this checkout, and its telemetry off.
export SAM_CLI_TELEMETRY := 0
export __SAM_CLI_APP_DIR := $(CURDIR)/.local/sam

.DEFAULT_GOAL := help
# No target that has a help text is a file.
.PHONY: help $(shell sed -n 's/^\([a-z-]*\):.*\#\# .*/\1/p' $(MAKEFILE_LIST))

help: ## list these targets
	@sed -n -e 's/^# -- \(.*[^-]\) --*$$/\1:/p' -e 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | \
	while IFS="$$(printf '\t')" read -r name what; do \
		if [ -n "$$what" ]; then printf '  make %-15s %s\n' "$$name" "$$what"; else printf '\n%s\n' "$$name"; fi; \
	done

# -- the tools ----------------------------------------------------------------------------------

venv: $(INSTALLED) ## install the tools into .venv (every other target does it when needed)

# Run each candidate to see whether it works: a pyenv shim is on PATH even if its Python is not
# installed. pip installs uv, and uv the rest: in seconds, where pip takes a minute. If uv reaches no
# package index (only pip's configuration may know it, or the proxy), pip installs everything.
$(INSTALLED): requirements/uv.txt requirements/dev.txt
	@for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
		then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo 'There is no Python 3.11 or newer$(if $(PYTHON), at $(PYTHON)). Install one,' \
			'or say where it is: make PYTHON=/path/to/python3' >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$$found cannot create a virtual environment. On Debian: apt-get install python3-venv" >&2; \
		exit 1; \
	fi; \
	echo "Installing the tools into .venv, with $$("$$found" -V) …" >&2; \
	"$$found" -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch .venv/.installed $@

# In an environment of its own, because it pins a boto3 that MiniStack does not work with.
$(SCANNER)/.installed: requirements/checkov.txt | $(INSTALLED)
	@$(BIN)/python -m venv --clear $(SCANNER)
	@$(BIN)/uv pip install --quiet --python $(SCANNER)/bin/python --require-hashes -r $< \
		|| $(SCANNER)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes \
	--no-annotate --custom-compile-command 'make lock'

lock: $(INSTALLED) ## update the lock files to the newest versions that pyproject.toml allows
	$(COMPILE) pyproject.toml --group dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml --constraint requirements/dev.txt -o layers/relay/requirements.txt
	$(COMPILE) --group uv -o requirements/uv.txt
	$(COMPILE) --group checkov -o requirements/checkov.txt
	@$(MAKE) venv

clean: ## stop the local stack and remove everything that was built, .venv included
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m local.stack down; fi
	rm -rf .venv $(SCANNER) .local .aws-sam .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -r {} +

# -- the stack on this machine ------------------------------------------------------------------

run: $(INSTALLED) ## start the stack, send a message, show the logs until Ctrl-C (RAW=1: as JSON), clean up
	@$(BIN)/python -m local.stack run $(if $(RAW),--raw)

up: $(INSTALLED) ## start the stack in the background; make env prints its addresses and keys
	@$(BIN)/python -m local.stack up

down: $(INSTALLED) ## stop the stack
	@$(BIN)/python -m local.stack down

.PHONY: hook
hook: $(INSTALLED) ## show the message a webhook would become: make hook NAME=… PAYLOAD=file.json [HEADERS='Name: value; …']
	@$(BIN)/python -m local.hook $${NAME:+"$$NAME"} $${PAYLOAD:+"$$PAYLOAD"} --headers="$$HEADERS"

broadcast: $(INSTALLED) ## try out, ask, send to a sandbox bot: make broadcast TEXT='…' [MORE=500] [RECIPIENTS=file.csv] [YES=1]
	@$(BIN)/python -m local.broadcast $${TEXT:+--text="$$TEXT"} $${MORE:+--more="$$MORE"} \
		$${RECIPIENTS:+--recipients="$$RECIPIENTS"} $(if $(YES),--yes)

watch: $(INSTALLED) ## show the local stack's events as they happen, until Ctrl-C (RAW=1: as JSON)
	@$(BIN)/python -m local.watch $(if $(RAW),--raw)

# -- the checks ---------------------------------------------------------------------------------

test: $(INSTALLED) ## run all tests, end to end included
	@$(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

test-unit: $(INSTALLED) ## run the unit tests
	@$(BIN)/pytest tests/unit $(ARGS)

mutants: $(INSTALLED) ## break the code in one place after another and see the tests fail
	@$(BIN)/python -m tests.mutants $(ARGS)

model: $(INSTALLED) ## search every interleaving for a broken promise; takes minutes: make model ARGS=redriven
	@PYTHONPATH=layers/relay $(BIN)/python -m tests.model $(ARGS)

SCENARIO := PYTHONPATH=layers/relay $(BIN)/python -m scenarios

load: $(INSTALLED) ## send a thousand messages through a stack of its own, a fifth of them faulty
	@$(SCENARIO) load $(ARGS)

soak: $(INSTALLED) ## load a stack of its own steadily, with faults, and watch it: make soak MINUTES=30
	@$(SCENARIO) soak $${MINUTES:+"$$MINUTES"} $(ARGS)

pacing: $(INSTALLED) ## measure the account's pace with 2, 5 and 10 concurrent senders
	@$(SCENARIO) pacing $(ARGS)

order: $(INSTALLED) ## send to a busy chat beside others, each limited to one message a second; kill ten runs
	@$(SCENARIO) order $(ARGS)

events: $(INSTALLED) ## send a thousand messages, kill the publisher again and again; measure from POST to event
	@$(SCENARIO) events $(ARGS)

upgrade-check: $(INSTALLED) ## deploy 0.1.0 with messages in every state, and this version over it
	@$(SCENARIO) upgrade $(ARGS)

verify: $(INSTALLED) ## check that a running stack has kept the relay's promises
	@PYTHONPATH=layers/relay $(BIN)/python -m tests.support.verifier $(ARGS)

bench-broadcast: $(INSTALLED) ## send a broadcast to 10,000, kill the notifier twice: make bench-broadcast ARGS='--rate 50'
	@$(SCENARIO) broadcast $(ARGS)

.PHONY: bench cost bench-events

# The script that trims the layer knows where this machine's Pythons are.
bench: export PYTHONPATH := layers/relay
bench: $(INSTALLED) ## measure what docs/performance.md and benchmarks/README.md say, and rewrite their figures
	@$(BIN)/python -m benchmarks

cost: export PYTHONPATH := layers/relay
cost: $(INSTALLED) ## print what a million messages cost by each door
	@$(BIN)/python -m benchmarks cost

bench-events: export PYTHONPATH := layers/relay
bench-events: $(INSTALLED) ## measure how fast the publisher starts, and print what a million events cost
	@$(BIN)/python -m benchmarks events

check: $(INSTALLED) $(SCANNER)/.installed ## check format, style, types and the template
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/sam validate --lint
	$(BIN)/cfn-lint
	@mkdir -p .local && $(BIN)/python -m tools.translated > .local/translated.json
	$(BIN)/cfn-lint -t .local/translated.json
	$(SCANNER)/bin/checkov > .local/checkov.log || { cat .local/checkov.log; exit 1; }
	@! grep 'Parsing errors' .local/checkov.log # it passes over a file that it cannot read
	$(BIN)/python -m local.hook

format: $(INSTALLED) ## format the code and fix what can be fixed automatically
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

fuzz: $(INSTALLED) ## test a deployed API against its contract, by API key and by IAM; takes minutes
	@FUZZ_EXAMPLES=20 $(BIN)/pytest tests/e2e/test_api.py $(ARGS)

# -- AWS ----------------------------------------------------------------------------------------

# SAM's cache knows the sources only: forget a layer that no Python 3.13 was there to compile. The
# layer's make must not inherit this one's variables.
build: $(INSTALLED) ## build for AWS, into .aws-sam/build
	$(BIN)/python -m local.hook
	@find .aws-sam/build/RelayLayer -name '*.pyc' 2>/dev/null | grep -q . || rm -rf .aws-sam/cache
	env -u MAKEFLAGS PYTHON=$(CURDIR)/$(BIN)/python $(BIN)/sam build

# In a terminal, the first deployment asks for the parameters and keeps them in samconfig.toml.
deploy: build ## deploy to AWS: make deploy STAGE=prod
	@$(OPS) deploy "$${STAGE:-dev}"

# -- a stack: of STAGE=dev or STAGE=prod, STACK=its-name, or else of make up --------------------

OPS = PYTHONPATH=layers/relay $(BIN)/python -m ops
WHERE = $${STACK:+--stack="$$STACK"}

env: $(INSTALLED) ## print a stack's addresses and keys for your shell: eval "$(make -s env)"
	@$(OPS) env $(WHERE)

doctor: $(INSTALLED) ## examine a stack and say what to do: make doctor STAGE=prod [THOROUGH=1]
	@$(OPS) doctor $(WHERE) $(if $(THOROUGH),--thorough)

secret: $(INSTALLED) ## store SMS Gold's user and password: make secret STAGE=prod
	@$(OPS) secret $(WHERE)

hook-secret: $(INSTALLED) ## set or rotate a hook's secret: make hook-secret STAGE=prod NAME=github [DROP_OLD=1]
	@$(OPS) hook-secret $(WHERE) --name="$$NAME" $(if $(DROP_OLD),--drop-old)

find: $(INSTALLED) ## find messages: make find REFERENCE=…, or STATUS=failed (rejected, unknown, expired) [MAX=…]
	@$(OPS) find $(WHERE) $${REFERENCE:+--reference="$$REFERENCE"} $${STATUS:+--status="$$STATUS"} \
		$${MAX:+--max="$$MAX"}

dead-letters: $(INSTALLED) ## show what could not be delivered, and why: make dead-letters STAGE=prod [MAX=…]
	@$(OPS) dead-letters $(WHERE) $${MAX:+--max="$$MAX"}

redrive: $(INSTALLED) ## send dead letters again: make redrive STAGE=prod [QUEUE=notifier|hooks] [REASON=…] [MAX=…] [APPLY=1]
	@$(OPS) redrive $(WHERE) $${QUEUE:+--queue="$$QUEUE"} $${REASON:+--reason="$$REASON"} \
		$${MAX:+--max="$$MAX"} $(if $(APPLY),--apply)

remove: $(INSTALLED) ## delete a stack, but not its table, queues and bucket: make remove STAGE=dev
	@$(OPS) remove $(WHERE)

# -- the dependencies ---------------------------------------------------------------------------

LOCKS = layers/relay/requirements.txt $(wildcard requirements/*.txt)

# One at a time: what they pin differs.
audit: $(INSTALLED) ## check the dependencies for known vulnerabilities (needs the network)
	@for lock in $(LOCKS); do echo "$$lock"; \
		$(BIN)/uv tool run pip-audit@2.9.0 --disable-pip --require-hashes -r "$$lock" || failed=1; \
	done; test -z "$$failed"

# -- the documentation --------------------------------------------------------------------------

openapi: $(INSTALLED) ## rewrite docs/openapi.json and docs/events.json from the code
	@PYTHONPATH=layers/relay $(BIN)/python -m tools.openapi

picture: $(INSTALLED) ## take docs/inbox.png anew, the READMEs' picture of the inbox (needs chromium)
	@$(BIN)/python -m tools.picture

reference: $(INSTALLED) ## rewrite the parts of docs/ that follow from the template, the code and the lock files
	@$(BIN)/python -m tools.reference
