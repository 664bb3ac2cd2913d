# The project's habits. They install what they need; CI calls only these.

# Another interpreter: make … PYTHON=/path/to/python3.12
PYTHON ?=
BIN := .venv/bin
SCANNER := .venv-checkov
INSTALLED := .venv/.installed$(subst /,-,$(PYTHON))
# The local stack: its ports, another provider than the sandbox, and Name=value parameters.
PORT ?= 4566
SANDBOX_PORT ?= 4580
PROVIDER_BASE_URL ?=
TEMPLATE_PARAMETERS ?=
# Where `make deploy` goes: an environment of samconfig.toml.
STAGE ?= dev
# More for pytest: make test-unit ARGS='-k pacing -x'
ARGS ?=

export PATH := $(CURDIR)/$(BIN):$(PATH)
export PORT SANDBOX_PORT PROVIDER_BASE_URL TEMPLATE_PARAMETERS
# Compiled files stay out of the folders that are packed and hashed for the build.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.local/pycache
# The SAM CLI keeps its state with the checkout and reports nothing to anyone.
export SAM_CLI_TELEMETRY := 0
export __SAM_CLI_APP_DIR := $(CURDIR)/.local/sam

.DEFAULT_GOAL := help
# Every target that has a help text is a habit, not a file.
.PHONY: help $(shell sed -n 's/^\([a-z-]*\):.*\#\# .*/\1/p' $(MAKEFILE_LIST))

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name what; \
	do printf '  make %-13s %s\n' "$$name" "$$what"; done

# -- the tools ----------------------------------------------------------------------------------

venv: $(INSTALLED) ## install the tools into .venv (every other target does so by itself)

# A candidate is tried by running it: a pyenv shim is on PATH even where its Python is not. pip
# fetches only uv, and uv the rest, because it takes seconds where pip takes a minute; pip does it
# all where uv reaches no index (an index or a proxy known to pip's configuration alone).
$(INSTALLED): requirements/uv.txt requirements/dev.txt
	@for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
		then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo 'No Python 3.11 or newer here$(if $(PYTHON), at $(PYTHON)). Install one,' \
			'or name it: make PYTHON=/path/to/python3' >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$$found cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; \
		exit 1; \
	fi; \
	echo "Installing the tools into .venv, with $$("$$found" -V) …" >&2; \
	"$$found" -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch .venv/.installed $@

# Apart from the rest, because it pins a boto3 that MiniStack does not work with.
$(SCANNER)/.installed: requirements/checkov.txt | $(INSTALLED)
	@$(BIN)/python -m venv --clear $(SCANNER)
	@$(BIN)/uv pip install --quiet --python $(SCANNER)/bin/python --require-hashes -r $< \
		|| $(SCANNER)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes \
	--no-annotate --custom-compile-command 'make lock'

lock: $(INSTALLED) ## choose the newest versions that pyproject.toml allows
	$(COMPILE) pyproject.toml --group dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml --constraint requirements/dev.txt -o layers/relay/requirements.txt
	$(COMPILE) --group uv -o requirements/uv.txt
	$(COMPILE) --group checkov -o requirements/checkov.txt
	@$(MAKE) venv

# -- the stack on this machine ------------------------------------------------------------------

run: $(INSTALLED) ## start the stack, send a message, show the logs (RAW=1: as JSON) until Ctrl-C, clean up
	@$(BIN)/python -m local.stack run $(if $(RAW),--raw)

up: $(INSTALLED) ## start the stack in the background; .local/stack.json says where it is
	@$(BIN)/python -m local.stack up

down: $(INSTALLED) ## stop it
	@$(BIN)/python -m local.stack down

# More for `make hook`: HEADERS='X-GitHub-Event: push'
HEADERS ?=
.PHONY: hook
hook: $(INSTALLED) ## show what a webhook would send: make hook NAME=… PAYLOAD=file.json [HEADERS='Name: value; …']
	@$(BIN)/python -m local.hook $(NAME) $(PAYLOAD) --headers '$(HEADERS)'

broadcast: $(INSTALLED) ## send to all of a sandbox bot's subscribers: make broadcast TEXT='…' MORE=500
	@$(BIN)/python -m local.broadcast $(if $(TEXT),--text '$(TEXT)') $(if $(MORE),--more $(MORE))

# -- the checks ---------------------------------------------------------------------------------

test: $(INSTALLED) ## run every test, end to end included
	@$(BIN)/pytest $(ARGS)

test-unit: $(INSTALLED) ## run the unit tests
	@$(BIN)/pytest tests/unit $(ARGS)

mutants: $(INSTALLED) ## break the code in ways that the tests must find
	@$(BIN)/python -m tests.mutants $(ARGS)

load: $(INSTALLED) ## send a thousand messages through a stack of its own, a fifth of them faulty
	@PYTHONPATH=layers/relay $(BIN)/python -m tests.load

soak: $(INSTALLED) ## load a stack of its own steadily, with faults, and watch it: make soak MINUTES=30
	@PYTHONPATH=layers/relay $(BIN)/python -m tests.soak $(MINUTES)

pacing: $(INSTALLED) ## measure the account's pace with 2, 5 and 10 concurrent senders
	@PYTHONPATH=layers/relay $(BIN)/python -m benchmarks.pacing

verify: $(INSTALLED) ## compare what a running stack has with what the relay promises
	@PYTHONPATH=layers/relay $(BIN)/python -m tests.support.verifier $(ARGS)

bench-broadcast: $(INSTALLED) ## a broadcast to 10,000, the notifier killed twice: make bench-broadcast ARGS='--rate 50'
	@$(BIN)/python -m benchmarks.broadcast $(ARGS)

.PHONY: bench cost

# The script that trims the layer knows where this machine's Pythons are.
bench: export PYTHONPATH := layers/relay
bench: $(INSTALLED) ## measure everything that docs/performance.md says, and rewrite its figures
	@$(BIN)/python -m benchmarks

cost: export PYTHONPATH := layers/relay
cost: $(INSTALLED) ## print what a million messages cost by each door
	@$(BIN)/python -m benchmarks cost

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

format: $(INSTALLED) ## format the code and mend what can be mended
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

fuzz: $(INSTALLED) ## test the deployed API against its contract, by key and by IAM; takes minutes
	@FUZZ_EXAMPLES=20 $(BIN)/pytest tests/e2e/test_api.py $(ARGS)

openapi: $(INSTALLED) ## write docs/openapi.json anew from the code
	@PYTHONPATH=layers/relay $(BIN)/python -m tools.openapi

# -- AWS ----------------------------------------------------------------------------------------

# The layer's own make must not take over this one's variables.
build: $(INSTALLED) ## build for AWS, into .aws-sam/build
	$(BIN)/python -m local.hook
	env -u MAKEFLAGS PYTHON=$(CURDIR)/$(BIN)/python $(BIN)/sam build

# The first time, at a terminal, it asks for the parameters and keeps the answers in samconfig.toml.
deploy: build ## deploy to AWS: make deploy STAGE=prod
	@if [ -t 0 ] && ! $(BIN)/aws cloudformation describe-stacks \
			--stack-name smsgold-relay-$(STAGE) >/dev/null 2>&1; then guided=--guided; fi; \
	$(BIN)/sam deploy --config-env $(STAGE) $$guided
	@if [ $(STAGE) = prod ]; then $(BIN)/aws cloudformation update-termination-protection \
		--enable-termination-protection --stack-name smsgold-relay-prod >/dev/null; fi

# Where the operator's commands go: STACK=a-name, or STAGE=prod, or the stack of `make up`.
STACK ?= $(if $(filter command line,$(origin STAGE)),smsgold-relay-$(STAGE))
OPS = PYTHONPATH=layers/relay $(BIN)/python -m ops
WHERE = $(if $(STACK),--stack $(STACK))

env: $(INSTALLED) ## a stack's addresses and keys, for your shell: eval "$(make -s env)"
	@$(OPS) env $(WHERE)

doctor: $(INSTALLED) ## examine a stack: make doctor STAGE=prod
	@$(OPS) doctor $(WHERE)

secret: $(INSTALLED) ## set SMS Gold's user and password: make secret STAGE=prod
	@$(OPS) secret $(WHERE)

dead-letters: $(INSTALLED) ## what could not be delivered, and why: make dead-letters STAGE=prod [MAX=…]
	@$(OPS) dead-letters $(WHERE) $(if $(MAX),--max $(MAX))

redrive: $(INSTALLED) ## try it once more: make redrive STAGE=prod [QUEUE=notifier] [REASON=…] [MAX=…] [APPLY=1]
	@$(OPS) redrive $(WHERE) $(if $(QUEUE),--queue $(QUEUE)) $(if $(REASON),--reason '$(REASON)') \
		$(if $(MAX),--max $(MAX)) $(if $(APPLY),--apply)

remove: $(INSTALLED) ## delete a stack but not its data: make remove STAGE=dev
	@$(OPS) remove $(WHERE)

# -- the dependencies ---------------------------------------------------------------------------

audit: $(INSTALLED) ## look the dependencies up among known vulnerabilities (needs the network)
	$(BIN)/uv tool run pip-audit@2.9.0 --disable-pip --require-hashes \
		-r layers/relay/requirements.txt -r requirements/dev.txt

reference: $(INSTALLED) ## write docs/configuration.md's table and docs/licences.md anew
	@$(BIN)/python -m tools.reference

clean: ## remove what was built or left behind, .venv included
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m local.stack down; fi
	rm -rf .venv $(SCANNER) .local .aws-sam .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -r {} +
