#!/usr/bin/env bash
# Writes the lock files from pyproject.toml: exact versions, with the hashes of what the index offers for them.
# A version in a lock is kept as long as pyproject.toml allows it; UPGRADE=1 takes the newest of all.
set -euo pipefail
cd "$(dirname "$0")/.."

lock=(.venv/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host)
[ "${UPGRADE:-0}" = 0 ] || lock+=(--upgrade)
# What stands in the files' heads instead of the command with its paths.
export CUSTOM_COMPILE_COMMAND="make lock"

"${lock[@]}" --output-file requirements.lock pyproject.toml
"${lock[@]}" --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
"${lock[@]}" --only-build-deps --build-deps-for editable --constraint requirements-dev.lock \
	--output-file requirements-build.lock pyproject.toml
"${lock[@]}" --extra fuzz --constraint requirements-dev.lock --output-file requirements-fuzz.lock pyproject.toml
