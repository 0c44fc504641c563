#!/usr/bin/env bash
# Gets a checkout ready: distribution packages, .venv, locked Python packages, .venv/bin/kubesock.
# Called by `make setup`; returns at once when nothing has changed since the last time.
#   DEV=1 (default) also what `make check` and `make test` need, DEV=0 only what runs kubesock.
set -euo pipefail
cd "$(dirname "$0")/.."

DEV=${DEV:-1}
PYTHON=/usr/bin/python3 # the distribution's: its BCC binding is built for no other
VENV=.venv
STAMP=$VENV/.setup-stamp

# The tests and the demo make namespaces (iproute2, util-linux) and look at processes (procps).
DEBIAN="python3 python3-venv python3-bpfcc linux-libc-dev ca-certificates iproute2 procps util-linux"
FEDORA="python3 python3-bcc kernel-headers ca-certificates iproute iproute-tc procps-ng util-linux"

if [ "$DEV" != 0 ]; then # the screen is tested in a real terminal
	DEBIAN="$DEBIAN tmux iptables nftables" # kube-proxy's rules are removed for real
	FEDORA="$FEDORA tmux iptables-nft nftables"
fi

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

missing_debian_packages() {
	local package
	for package in $DEBIAN; do
		case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true) in
		*' ok installed') ;;
		*) printf '%s ' "$package" ;;
		esac
	done
}

what_is_missing() { # without a package manager that we know: by what it would have brought
	local word
	for word in ip nsenter unshare pgrep $([ "$DEV" = 0 ] || echo tmux); do
		command -v "$word" >/dev/null || printf '%s ' "$word"
	done
	[ -x "$PYTHON" ] || { printf '%s ' "$PYTHON"; return; }
	"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || printf 'python3-venv '
	"$PYTHON" -c 'from bcc import BPF' 2>/dev/null || printf 'python3-bpfcc '
	[ -e /usr/include/linux/bpf.h ] || printf '/usr/include/linux/bpf.h '
}

install_packages() {
	local missing
	if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
		missing=$(missing_debian_packages)
		[ -n "$missing" ] || return 0
		if [ "$(id -u)" = 0 ]; then
			say "installing ${missing% }"
			export DEBIAN_FRONTEND=noninteractive
			# shellcheck disable=SC2086 # a list of names
			apt-get install -qq -y --no-install-recommends $missing >/dev/null 2>&1 </dev/null && return 0
			apt-get update -qq </dev/null || say "apt-get update failed; trying with the lists that are there"
			# shellcheck disable=SC2086
			apt-get install -qq -y --no-install-recommends $missing >/dev/null </dev/null && return 0
			die "apt-get could not install ${missing% }: see its message above"
		fi
	else
		missing=$(what_is_missing)
		[ -n "$missing" ] || return 0
	fi
	say "missing: ${missing% }. Install as root, then run this again:"
	say "  Debian, Ubuntu: apt-get install --no-install-recommends $DEBIAN"
	say "  Fedora:         dnf install $FEDORA"
	say "going on with the rest"
}

venv_is_usable() { # made here, by this very Python, seeing the distribution's packages
	[ -x $VENV/bin/python ] && [ -x $VENV/bin/pip ] &&
		grep -qx 'include-system-site-packages = true' $VENV/pyvenv.cfg &&
		head -n 1 $VENV/bin/pip | grep -qF "$PWD/$VENV/bin/python" &&
		[ "$($VENV/bin/python -c "$WHICH_PYTHON" 2>/dev/null)" = "$("$PYTHON" -c "$WHICH_PYTHON")" ]
}
WHICH_PYTHON='import sys; print(sys.base_prefix, sys.version)'

fingerprint() {
	printf '%s\n' "$PWD" "$DEV"
	"$PYTHON" -c "$WHICH_PYTHON" 2>/dev/null || true
	cat requirements*.lock build-aux/setup.sh
	sed -n '/^\[build-system\]/,/^\[project.optional/p; /^\[tool.hatch/,/^$/p' pyproject.toml # what an editable install is made of
}

exec 9<build-aux/setup.sh
flock 9 # two makes at once: the second finds the work done

install_packages
[ -x "$PYTHON" ] || die "$PYTHON is missing: nothing can go on without it"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
	die "$($PYTHON --version) at $PYTHON is too old: kubesock needs 3.11 (Debian 12, Ubuntu 24.04, Fedora 37 or later)"

now=$(fingerprint | sha256sum)
if [ -x $VENV/bin/kubesock ] && [ "$(cat $STAMP 2>/dev/null)" = "$now" ]; then
	exit 0
fi
if ! venv_is_usable; then
	say "making $VENV"
	"$PYTHON" -m venv --clear --system-site-packages "$PWD/$VENV" ||
		die "$PYTHON cannot make a virtual environment: install python3-venv (Debian, Ubuntu) or python3 (Fedora)"
fi
locks=(-r requirements.lock -r requirements-build.lock)
[ "$DEV" = 0 ] || locks=(-r requirements-dev.lock -r requirements-build.lock)
say "installing the locked Python packages"
pip=("$VENV/bin/python" -m pip --disable-pip-version-check -qq install --no-deps)
"${pip[@]}" --require-hashes "${locks[@]}" || die "pip could not install the locked packages: see its message above"
"${pip[@]}" --no-index --no-build-isolation --editable . || die "pip could not install kubesock itself"
printf '%s\n' "$now" >$STAMP
say "done: $VENV/bin/kubesock"
