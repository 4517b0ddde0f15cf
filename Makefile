# A fresh clone needs Python >= 3.11 with venv, make and git. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
JOBS ?= 2
# Tests that start processes wait for much of their time, so that three fit on two cores.
WAITING_JOBS ?= 3
PYTEST ?=
TESTS ?=
# pytest keeps the test files that it has rewritten beside them; where Python may not, every process does it again.
unexport PYTHONDONTWRITEBYTECODE
LOCKED := requirements/bootstrap.lock pyproject.toml
UV := $(BIN)/uv --quiet
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" $(UPGRADE)

.PHONY: properties help up check test coverage test-all chaos fuzz fuzz-compiled bench compiled bench-check conformance lint format docs tools lock upgrade clean compose-test helm-test helm-install-test asyncapi-check dashboards-check dashboards-shots focus-check

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

# A development environment includes everything that a user's has, so an existing one is kept.
up: $(if $(wildcard $(VENV)/.dev),$(VENV)/.dev,$(VENV)/.embedded) ## Install what is needed and start everything: Kafka, gateway, worker and the rest (ARGS="--port 4320").
	@exec $(BIN)/tallystream up $(ARGS)

# To run while working: without Kafka, and with fewer examples for each property.
check: lint ## Style, types, layers and the unit tests, with fewer examples; what pre-commit runs before a push.
	TALLYSTREAM_TEST_PROFILE=quick $(BIN)/pytest -q -n $(JOBS) --dist worksteal -m "not thorough" tests/unit tests/contract/test_import_cycles.py $(PYTEST)

# Two runs. The first one measures the coverage of the tests without Kafka, whose lines and branches must not fall below the
# floor in pyproject.toml. Measuring takes as much time as the tests themselves, so those that repeat themselves (property
# tests) or take long (thorough ones) are in the second run: they compute while tests that start processes wait. There the
# tests of a file run in one process, and the long files first.
test: export TALLYSTREAM_TEST_PROFILE ?= same
test: lint ## All checks and all tests (PYTEST="-k spool -x"; JOBS=0 for one at a time).
ifeq ($(strip $(PYTEST)),)
	$(MAKE) coverage TESTS='-m "not unmeasured" tests/unit tests/contract'
	$(BIN)/pytest -n $(WAITING_JOBS) --dist loadfile --no-loadscope-reorder --durations 40 -m unmeasured tests/chaos tests/e2e tests/integration tests/unit tests/contract
else
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST)
endif

coverage: $(VENV)/.dev ## Run tests measured, with the processes they start, and report (TESTS="tests/unit tests/integration").
	@rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/coverage run -m pytest -q -n $(JOBS) --dist worksteal $(TESTS)
	@$(BIN)/coverage combine --quiet && $(BIN)/coverage html --quiet --fail-under=0 -d build/coverage/html && $(BIN)/coverage report

properties: $(VENV)/.dev ## Property tests with new random examples, ROUNDS times (`make test` has the same examples in every run).
	@for round in $$(seq $(or $(ROUNDS),3)); do $(BIN)/pytest -q -n $(JOBS) --dist worksteal -m hypothesis tests/unit tests/contract $(PYTEST) || exit 1; done

test-all: ## The same on Python 3.11, 3.12 and 3.13, where pyenv has them.
	@for version in 3.11 3.12 3.13; do \
		python="$$(pyenv prefix "$$(pyenv latest "$$version" 2>/dev/null)" 2>/dev/null)/bin/python"; \
		[ -x "$$python" ] || python="$$(command -v "python$$version" || true)"; \
		if [ -z "$$python" ] || ! "$$python" -c '' 2>/dev/null; then echo "Python $$version: not installed, skipped"; continue; fi; \
		echo "Python $$version: $$python"; \
		$(MAKE) test VENV=".venv-$$version" PYTHON="$$python"; \
	done

chaos: $(VENV)/.dev ## Run the long chaos tests, with 100 kills and more under load; writes docs/chaos.md (ARGS="--kinds worker=5").
	$(BIN)/python -m tests.chaos --report docs/chaos.md $(ARGS)
	$(BIN)/python -m tests.chaos --brokers 3 --report docs/chaos.md $(ARGS)
	$(BIN)/python -m tests.chaos.rolling --report docs/chaos.md

# Each target runs in its own process; findings are in build/fuzz.
fuzz: $(VENV)/.dev ## Fuzz each decoder and the whole way of a body into rows, 10 minutes each (ARGS="whole --seconds 60").
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check atheris==3.0.0 \
		|| echo "atheris cannot be installed: mutations are not guided by coverage"
	$(BIN)/python -m tests.fuzz $(ARGS)

# The compiled walks read bytes without bounds checks, so a mistake in them shows only to a tool that watches memory. Python
# itself is not built with it, so its allocator must be malloc, and leaks are not looked for.
fuzz-compiled: $(VENV)/.dev ## Fuzz the compiled walks over bodies with AddressSanitizer, 2 minutes each (gcc).
	@CFLAGS="-fsanitize=address -g" LDFLAGS="-fsanitize=address" $(BIN)/python -m tests.support.compiled build/sanitised >/dev/null
	cd build/sanitised && LD_PRELOAD="$$(gcc -print-file-name=libasan.so)" PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 \
		PYTHONPATH=src:. $(abspath $(BIN))/python -m tests.fuzz $(or $(ARGS),walk json_walk protobuf json --seconds 120)

bench: $(VENV)/.dev ## Measure beside the OpenTelemetry Collector and Kafka Streams, and all else that has a goal; writes docs/benchmarks.md (Go, Maven, an hour).
	$(BIN)/python -m benchmarks.everything $(ARGS)

compiled: $(VENV)/.dev ## Compile the hot modules (mypyc, a C compiler) in a copy of the project, build/compiled, and print its PYTHONPATH.
	@$(BIN)/python -m tests.support.compiled build/compiled

bench-check: $(VENV)/.dev ## Count the instructions of the hot paths, and fail if one costs 5% more than the baseline (valgrind).
	$(BIN)/python -m benchmarks.instructions $(ARGS)

# What a language lacks on this machine is skipped with a line that says so.
conformance: $(VENV)/.dev ## The page of rules, and OpenTelemetry's exporters (Python, JavaScript, Go, Java, Rust) and Collector against the gateway.
	@TALLYSTREAM_CONFORMANCE="$${TALLYSTREAM_CONFORMANCE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/tallystream-conformance}"; export TALLYSTREAM_CONFORMANCE; \
	$(BIN)/pytest tests/contract/test_conformance.py tests/integration/gateway/test_exporters.py tests/integration/gateway/test_grpc.py tests/conformance $(PYTEST)

compose-test: $(VENV)/.dev ## Build the image, start docker-compose.yml on a real engine, kill a worker under load, compare the rows.
	TALLYSTREAM_COMPOSE_TEST=1 $(BIN)/pytest tests/e2e/test_compose.py $(PYTEST)

helm-test: $(VENV)/.dev ## Lint and render the chart, run its tests, check the result against Kubernetes' own schemas.
	$(BIN)/pytest tests/contract/test_helm.py $(PYTEST)

helm-install-test: $(VENV)/.dev ## Install the chart into a real API server, built once with Go (15 minutes; needs helm, etcd).
	@KUBERNETES_BIN="$${KUBERNETES_BIN:-$${XDG_CACHE_HOME:-$$HOME/.cache}/tallystream-kubernetes}"; export KUBERNETES_BIN; \
	deploy/helm/cluster/build.sh "$$KUBERNETES_BIN"; \
	TALLYSTREAM_HELM_INSTALL_TEST=1 $(BIN)/pytest tests/e2e/test_helm_install.py $(PYTEST)

asyncapi-check: $(VENV)/.dev ## Check asyncapi.yaml against AsyncAPI's own JSON Schema (npm).
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	(cd "$$folder" && npm pack --silent @asyncapi/specs@6.11.1 >/dev/null && tar xzf ./*.tgz); \
	TALLYSTREAM_ASYNCAPI_SCHEMA="$$folder/package/schemas/3.0.0.json" $(BIN)/pytest tests/contract/test_topic_docs.py $(PYTEST)

dashboards-check: $(VENV)/.dev ## Check the dashboards against Grafana's own TypeScript types (npm).
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	cp deploy/grafana/check/* "$$folder"; \
	(cd "$$folder" && npm install --silent --ignore-scripts --no-package-lock --no-audit --no-fund); \
	TALLYSTREAM_GRAFANA_TYPES="$$folder" $(BIN)/pytest tests/contract/test_dashboard_types.py $(PYTEST)

dashboards-shots: $(VENV)/.dev ## Draw every dashboard from a running pipeline with Grafana's own components (npm, Chromium): build/dashboards.
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	cp deploy/grafana/look/package.json "$$folder"; \
	(cd "$$folder" && npm install --silent --legacy-peer-deps --ignore-scripts --no-package-lock --no-audit --no-fund); \
	TALLYSTREAM_GRAFANA_UI="$$folder" $(BIN)/pytest tests/e2e/test_dashboard_shots.py $(PYTEST)

focus-check: $(VENV)/.dev $(VENV)-focus/.installed ## Check FOCUS files with the FinOps Foundation's validator, in an environment of its own (Python 3.12).
	TALLYSTREAM_FOCUS_VALIDATOR=$(VENV)-focus $(BIN)/pytest -q -rP tests/contract/test_focus_validator.py $(PYTEST)

console-test: $(VENV)/.dev ## Test the console in a real browser (Chromium): pages, live updates, accessibility; pictures in build/console.
	$(BIN)/pytest tests/e2e/test_console.py $(PYTEST)

lint: $(VENV)/.dev ## Check style, types and the layers of imports.
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy -n $(JOBS)
	$(BIN)/mypy benchmarks examples requirements/lock_kafka.py
	$(BIN)/mypy deploy/grafana/code deploy/grafana/look
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev ## Format the code.
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format

docs: $(VENV)/.dev ## Generate docs/metrics.md and the Grafana dashboards from the code.
	$(BIN)/python -m tallystream.reference.metrics > docs/metrics.md
	$(BIN)/python -m deploy.grafana.code

tools: ## Install the optional tools that tests use: Prometheus, Alertmanager, Chromium, valgrind (Debian, as root).
	@if command -v promtool >/dev/null && command -v amtool >/dev/null && command -v chromium >/dev/null && command -v valgrind >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus prometheus-alertmanager chromium valgrind >/dev/null; \
	else echo "promtool, amtool, chromium and valgrind cannot all be installed here: tests that need a missing one are skipped"; fi

lock: $(VENV)/.dev ## Update the lock files of Python packages and Kafka's jars, with hashes.
	$(COMPILE) requirements/bootstrap.in -o requirements/bootstrap.lock
	$(COMPILE) pyproject.toml requirements/build.in --extra embedded --group dev -o requirements/dev.lock
	$(COMPILE) pyproject.toml requirements/build.in --extra embedded -c requirements/dev.lock -o requirements/embedded.lock
	$(COMPILE) pyproject.toml requirements/build.in -c requirements/dev.lock -o requirements/runtime.lock
	$(COMPILE) requirements/compile.in -c requirements/dev.lock -o requirements/compile.lock
	$(COMPILE) --no-deps requirements/neighbour.in -o requirements/neighbour.lock
	$(subst 3.11,3.12,$(COMPILE)) requirements/focus.in -o requirements/focus.lock
	$(BIN)/python requirements/lock_kafka.py

upgrade: ## Update the lock files to the newest versions that pyproject.toml allows.
	$(MAKE) lock UPGRADE=--upgrade

clean: ## Remove what these targets created; data and downloads stay.
	rm -rf .venv .venv-* build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.embedded: requirements/embedded.lock $(LOCKED) | $(BIN)/uv
	$(call install,embedded)

$(VENV)/.dev: requirements/dev.lock $(LOCKED) | $(BIN)/uv
	$(call install,dev)

$(VENV)-focus/.installed: requirements/focus.lock | $(BIN)/uv
	@python="$$(pyenv prefix "$$(pyenv latest 3.12 2>/dev/null)" 2>/dev/null)/bin/python"; \
	[ -x "$$python" ] || python=python3.12; \
	"$$python" -c '' 2>/dev/null || { echo "focus-validator needs Python 3.12" >&2; exit 1; }; \
	echo "installing requirements/focus.lock into $(VENV)-focus"; \
	"$$python" -m venv --clear $(VENV)-focus
	@$(UV) pip sync --python $(VENV)-focus/bin/python --require-hashes requirements/focus.lock
	@touch $@

# uv removes everything that the lock does not name, including the project itself, and checks every hash.
define install
	@echo "installing requirements/$(1).lock into $(VENV)"
	@$(UV) pip sync --python $(BIN)/python --require-hashes requirements/$(1).lock
	@$(UV) pip install --python $(BIN)/python --no-deps --no-index --no-build-isolation --editable .
	@echo "compiling it, so that every process starts in a third of the time"
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib agents schemas src streams tests || true
	@touch $@
endef

$(BIN)/uv: requirements/bootstrap.lock
	@$(find_python); \
	echo "making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV) || { echo "Python's venv is missing (on Debian: apt install python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	@touch $@

find_python = python="$(PYTHON)"; \
	[ -n "$$python" ] || python="$$(requirements/find_python.sh)" || true; \
	[ -n "$$python" ] || { echo "Python 3.11, 3.12 or 3.13 with venv is needed (on Debian: apt install python3-venv); name one with make PYTHON=..." >&2; exit 1; }
