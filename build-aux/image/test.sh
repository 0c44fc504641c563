#!/usr/bin/env bash
# Builds the image without a registry and runs it: tests/image, with clients outside the container.
#   BASE          mmdebstrap (default), or an image of Debian 12 that podman can get
#   IMAGE_STORE   where podman keeps what is built; kept for the next time (default: a folder that goes at the end)
#   REPRODUCE=1   builds twice and compares the layers
# Needs root, podman, runc and mmdebstrap. The machine's own images and containers are not touched.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { printf 'image-test: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

missing=()
for tool in podman runc mmdebstrap; do command -v "$tool" >/dev/null || missing+=("$tool"); done
[ ${#missing[@]} = 0 ] || die "missing: ${missing[*]}. On Debian 12: apt-get install --no-install-recommends ${missing[*]}"
[ "$(id -u)" = 0 ] || die "needs root"

folder=$(mktemp -d)
store=${IMAGE_STORE:-$folder/store}
mkdir -p "$store"
podman=("$(command -v podman)" --root "$store/root" --runroot "$store/run" --tmpdir "$store/tmp" --runtime runc --cgroup-manager cgroupfs)
end() {
	if [ -z "${IMAGE_STORE:-}" ]; then "${podman[@]}" system reset --force >/dev/null 2>&1 || true; fi
	rm -rf "$folder"
}
trap end EXIT

base=${BASE:-mmdebstrap}
if [ "$base" = mmdebstrap ]; then
	base=localhost/debian:12
	if ! "${podman[@]}" image exists $base; then
		say "making $base"
		# This machine's own archive and its settings, where it is a Debian 12 too.
		sources=()
		for list in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
			if [ -s "$list" ] && grep -q bookworm "$list"; then sources=("$list") && break; fi
		done
		mmdebstrap --quiet --variant=minbase bookworm "$folder/base.tar" "${sources[@]}"
		"${podman[@]}" import --quiet "$folder/base.tar" $base >/dev/null
		rm "$folder/base.tar"
	fi
fi

# What this machine needs to reach its archives: certificates and settings, mounted while it builds, not kept.
printf '[global]\ncert = /run/build-certificates.crt\n' >"$folder/pip.conf"
build=(--network=host --isolation=chroot --volume=/etc/ssl/certs/ca-certificates.crt:/run/build-certificates.crt:ro
	--volume="$folder/pip.conf":/etc/pip.conf:ro --volume=/etc/apt/apt.conf.d:/etc/apt/apt.conf.d:ro)

printf '#!/bin/sh\nexec %s "$@"\n' "${podman[*]}" >"$folder/podman"
chmod +x "$folder/podman"
built() { # built TAG OPTION...: the identities of the layers
	TAG=$1 BASE=$base BUILDER=podman BUILD_OPTIONS="${build[*]} ${*:2}" PATH=$folder:$PATH build-aux/image/build.sh >/dev/null
	"$folder/podman" image inspect --format '{{json .RootFS.Layers}}' "$1"
}
began=$SECONDS
built localhost/kubesock:test >"$folder/layers"
say "built in $((SECONDS - began)) s, $("${podman[@]}" image inspect --format '{{.Size}}' localhost/kubesock:test) bytes unpacked"
if [ "${REPRODUCE:-0}" != 0 ]; then
	built localhost/kubesock:again --no-cache >"$folder/layers-again"
	diff "$folder/layers" "$folder/layers-again" || die "the same inputs gave other layers"
	say "built again without a cache: the same layers"
fi

export KUBESOCK_IMAGE=localhost/kubesock:test KUBESOCK_PODMAN="${podman[*]}"
# Limits that a machine without CAP_SYS_RESOURCE may set too.
export KUBESOCK_PODMAN_RUN="--ulimit=nofile=20000:20000 --ulimit=nproc=1000:1000"
.venv/bin/python -m pytest -q -m long tests/image
