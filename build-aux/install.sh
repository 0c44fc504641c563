#!/usr/bin/env bash
# install.sh install|uninstall: kubesock on this machine, for systemd. Undone by uninstall, to the last file.
#   PREFIX    (/usr/local)          bin/kubesock, lib/kubesock, bash completion
#   UNITDIR   (/etc/systemd/system) the unit
#   STATEDIR  (/var/lib/kubesock)   config.yaml, where there is none
#   BPFFS     (/sys/fs/bpf/kubesock) what uninstall cleans up
# The environment that runs it is made of the locked libraries and this tree, by the distribution's Python.
set -euo pipefail
cd "$(dirname "$0")/.."

PREFIX=${PREFIX:-/usr/local}
UNITDIR=${UNITDIR:-/etc/systemd/system}
STATEDIR=${STATEDIR:-/var/lib/kubesock}
BPFFS=${BPFFS:-/sys/fs/bpf/kubesock}
LIB=$PREFIX/lib/kubesock
LIST=$LIB/installed-files
UNIT=$UNITDIR/kubesock.service
COMPLETION=$PREFIX/share/bash-completion/completions/kubesock

say() { printf '%s: %s\n' "$verb" "$*" >&2; }
die() { say "$*"; exit 1; }
systemd_runs() { [ -d /run/systemd/system ] && [ "$UNITDIR" = /etc/systemd/system ]; }

install_it() {
	[ ! -e "$LIB" ] || [ -e "$LIST" ] || die "$LIB is there and not ours: remove it or choose another PREFIX"
	for path in "$PREFIX/bin/kubesock" "$UNIT"; do
		[ ! -e "$path" ] || grep -qxF "$path" "$LIST" 2>/dev/null || die "$path is there and not ours: remove it first"
	done
	built=$(mktemp -d)
	trap 'rm -rf "$built"' EXIT
	.venv/bin/python -m hatchling build --target wheel --directory "$built" >"$built/log" 2>&1 || die "$(cat "$built/log")"
	# Beside the old one, so that a failing network leaves that in place; then exchanged.
	rm -rf "$LIB.new"
	mkdir -p "$PREFIX/lib" "$PREFIX/bin" "$UNITDIR" "$(dirname "$COMPLETION")"
	/usr/bin/python3 -m venv --without-pip --system-site-packages "$LIB.new"
	say "installing the locked Python packages"
	local pip=(.venv/bin/python -m pip --disable-pip-version-check --python "$LIB.new/bin/python" -qq install --no-deps --ignore-installed)
	"${pip[@]}" --require-hashes -r requirements.lock || die "pip could not install the locked packages: see above"
	"${pip[@]}" --no-index "$built"/*.whl
	# An environment knows its own path: the new one is told where it will be.
	grep -rlIF "$LIB.new" "$LIB.new/bin" "$LIB.new/pyvenv.cfg" | xargs -r sed -i "s|$LIB\.new|$LIB|g"
	rm -rf "$LIB"
	mv "$LIB.new" "$LIB"
	printf '%s\n' "$PREFIX/bin/kubesock" "$UNIT" "$COMPLETION" >"$LIST"
	ln -sfn "$LIB/bin/kubesock" "$PREFIX/bin/kubesock"
	sed "s|@PREFIX@|$PREFIX|g" deploy/systemd/kubesock.service >"$UNIT"
	"$LIB/bin/kubesock" completion bash >"$COMPLETION"
	if [ ! -e "$STATEDIR/config.yaml" ]; then
		install -d -m 0700 "$STATEDIR"
		install -m 0600 deploy/systemd/config.yaml "$STATEDIR/config.yaml"
	fi
	if systemd_runs; then systemctl daemon-reload; fi
	say "done. Edit $STATEDIR/config.yaml, then: systemctl enable --now kubesock"
}

uninstall_it() {
	[ -e "$LIST" ] || die "nothing of kubesock in $LIB: was it installed with another PREFIX?"
	if systemd_runs; then systemctl disable --now kubesock 2>/dev/null || true; fi
	if [ -d "$BPFFS" ]; then
		"$LIB/bin/kubesock" cleanup --bpffs "$BPFFS" --state-dir "$STATEDIR" ||
			die "the hooks of $BPFFS are still attached: see above; nothing was removed"
	fi
	while read -r path; do rm -f "$path"; done <"$LIST"
	rm -rf "$LIB"
	if systemd_runs; then systemctl daemon-reload; fi
	[ ! -d "$STATEDIR" ] || say "$STATEDIR stays, with your configuration; remove it if you want"
}

verb=${1:-}
case $verb in
install | uninstall) "${verb}_it" ;;
*) die "usage: install.sh install|uninstall" ;;
esac
