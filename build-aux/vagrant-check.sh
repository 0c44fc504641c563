#!/usr/bin/env bash
# What can be said of vagrant/ without a machine: shellcheck, and Vagrant's own opinion of the Vagrantfile.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
for tool in shellcheck vagrant; do command -v $tool >/dev/null || missing+=("$tool"); done
if [ ${#missing[@]} != 0 ]; then
	echo "vagrant-check: missing: ${missing[*]}. On Debian 12: apt-get install --no-install-recommends ${missing[*]}" >&2
	exit 1
fi
shellcheck -x vagrant/*.sh
cd vagrant
# Its files go into a folder of this run; no provider is asked for, none is used.
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
VAGRANT_HOME=$home VAGRANT_DOTFILE_PATH=$home/dot VAGRANT_CHECKPOINT_DISABLE=1 vagrant validate --ignore-provider
