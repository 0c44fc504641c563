# kubesock. `make` lists the targets; `make demo` and `make test` need nothing before them.
MAKEFLAGS += --no-print-directory --no-builtin-rules
.SUFFIXES:
.DEFAULT_GOAL := help

BIN := .venv/bin
DEV ?= 1
DURATION ?= 600

.PHONY: help setup demo test check unit kernel-test reliability fuzz format flags bench kernels screenshots lock clean
.PHONY: install uninstall image image-test manifests docs release vagrant-check

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## distribution packages (when root), .venv, locked libraries; DEV=0 without the tools for developers
	@DEV=$(DEV) build-aux/setup.sh

demo: setup ## a small cluster of network namespaces on this machine: watch Services being translated (root)
	@$(BIN)/kubesock demo

test: check ## all that CI runs: make check, then every test that is not marked long (root for the kernel's)
	@$(BIN)/python -m pytest -m 'not long' -n 2 --dist loadfile

check: setup ## format, lint, types, import rules, C format: under a minute
	@build-aux/check.sh

unit: setup ## the tests that need no root and no kernel: a few seconds
	@$(BIN)/python -m pytest -q -m 'not kernel and not long' tests/unit tests/property

kernel-test: setup ## the tests on the real kernel, in namespaces and below a cgroup of their own (root)
	@$(BIN)/python -m pytest -m 'kernel and not long'

reliability: setup ## the long tests behind docs/reliability.md, which print its figures (root, some minutes each)
	@$(BIN)/python -m pytest -s -m long -o faulthandler_timeout=0 tests/reliability tests/outside

format: setup ## bring Python and C into shape
	@$(BIN)/ruff check --quiet --fix-only
	@$(BIN)/ruff format --quiet
	@find bpf tests -name '*.c' -o -name '*.h' | xargs $(BIN)/clang-format -i

flags: setup ## write docs/flags.md from the table of flags
	@$(BIN)/python build-aux/flags_document.py

.PHONY: metrics metrics-check
metrics: setup ## write docs/metrics.md from what the agent exposes
	@$(BIN)/python build-aux/metrics_document.py

.PHONY: man shells-check
man: setup ## write docs/man from the command line
	@$(BIN)/python build-aux/man_pages.py

shells-check: setup ## completion in bash, zsh and fish, and the manual pages under mandoc, which it installs (Debian, root)
	@apt-get install -qq -y --no-install-recommends zsh fish mandoc >/dev/null </dev/null
	@$(BIN)/python -m pytest -q tests/datapath/test_shells.py tests/unit/test_man_pages.py

metrics-check: setup ## metrics, alert rules and dashboard against Prometheus itself (Debian's package, unpacked below build/)
	@PATH="$$(build-aux/prometheus.sh):$$PATH" $(BIN)/python -m pytest -q -m long tests/prometheus tests/datapath/test_prometheus.py

fuzz: setup ## bytes nobody thought of, guided by coverage: DURATION=600 seconds for objects, a tenth for each other target
	@$(BIN)/pip install --quiet --require-hashes -r requirements-fuzz.lock
	@$(BIN)/python -m tests.fuzz --all $(DURATION)

.PHONY: fuzz-seeds
fuzz-seeds: setup ## what make fuzz found and no seed reaches, into tests/fuzz/seeds: look at it, give it names, commit it
	@$(BIN)/pip install --quiet --require-hashes -r requirements-fuzz.lock
	@$(BIN)/python -m tests.fuzz --seeds

bench: setup ## what a connect() and a change cost on this machine (root)
	@build-aux/bench-packages.sh
	@$(BIN)/python -m bench

kernels: setup ## old and new kernels in virtual machines, the datapath tests in each; SERIES="5.10 6.1" (Debian, root, three to six minutes each)
	@build-aux/kernels/matrix.sh $(SERIES)

install: setup ## the agent as a systemd unit: /usr/local/bin/kubesock and kubesock.service (root); PREFIX=/usr/local
	@build-aux/install.sh install

uninstall: ## take away what make install made: unit, hooks, pins, files; the configuration stays (root)
	@build-aux/install.sh uninstall

image: ## the container image, with docker, podman or buildah; TAG=kubesock:VERSION BASE=debian:12-slim
	@build-aux/image/build.sh

docs: setup ## the documents as a site, build/site; links and headings that lead nowhere are errors
	@$(BIN)/python build-aux/site.py

release: setup ## dist/: wheel, sdist, image, manifests, checksums of all; IMAGE=0 without the image
	@build-aux/release.sh

vagrant-check: ## vagrant/ as far as no machine is needed: shellcheck, vagrant validate
	@build-aux/vagrant-check.sh

manifests: setup ## deploy/install.yaml from deploy/kustomize
	@$(BIN)/python build-aux/manifests.py

image-test: setup ## build the image without a registry, run it, and dial through it from outside (root, podman, runc, mmdebstrap)
	@build-aux/image/test.sh

screenshots: setup ## docs/screenshots: what kubesock top looks like
	@$(BIN)/python -m tests.tui.screenshots docs/screenshots

lock: setup ## write requirements*.lock from pyproject.toml; UPGRADE=1 takes the newest versions
	@build-aux/lock.sh

clean: ## remove what was built and cached; .venv stays
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find bench pyagent tests -name __pycache__ -type d -prune -exec rm -rf {} +
