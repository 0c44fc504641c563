#!/usr/bin/env bash
# Says where prometheus and promtool are: on PATH, or the distribution's package unpacked below build/, so that
# no daemon is installed and started.
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
	dirname "$(command -v promtool)"
	exit 0
fi
place=$PWD/build/prometheus
if [ ! -x "$place/usr/bin/promtool" ]; then
	command -v apt-get >/dev/null || {
		echo "prometheus.sh: install prometheus (with promtool): there is no apt-get here" >&2
		exit 1
	}
	mkdir -p "$place"
	cd "$place"
	apt-get download -q prometheus >/dev/null 2>&1 || { apt-get update -qq && apt-get download -qq prometheus; } >&2
	dpkg -x prometheus_*.deb .
	rm prometheus_*.deb
fi
echo "$place/usr/bin"
