#!/usr/bin/env bash
# Builds the image with docker, podman or buildah, whichever is there, and prints its name.
#   TAG          of the image                                    (kubesock:VERSION)
#   BASE         an image of Debian 12 to build on               (the Dockerfile's)
#   BUILDER      docker, podman or buildah                       (the first that works)
#   BUILD_OPTIONS  more options for it, such as --network=host
# Files in layers have the time of the commit: the same tree on the same day, when Debian's archive is the same, gives
# the same layers.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { printf 'image: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

works() {
	case $1 in
	docker) docker info >/dev/null 2>&1 ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

builder=${BUILDER:-}
if [ -z "$builder" ]; then
	for builder in docker podman buildah none; do works "$builder" && break; done
fi
[ "$builder" != none ] || die "neither docker (with its daemon), podman nor buildah is here: install one of them"

version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' pyagent/__init__.py)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || revision=$revision-modified
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
tag=${TAG:-kubesock:$version}

options=(--file deploy/image/Dockerfile --tag "$tag" --build-arg "VERSION=$version" --build-arg "REVISION=$revision"
	--build-arg "SOURCE_DATE_EPOCH=$epoch")
[ -z "${BASE:-}" ] || options+=(--build-arg "BASE=$BASE")
# shellcheck disable=SC2206 # a list of options
options+=(${BUILD_OPTIONS:-})

say "$tag with $builder"
case $builder in
docker) docker buildx build "${options[@]}" --provenance=false \
	--output "type=docker,rewrite-timestamp=true" . ;;
podman) podman build --quiet --timestamp "$epoch" "${options[@]}" . >/dev/null ;;
buildah) buildah build --quiet --timestamp "$epoch" "${options[@]}" . >/dev/null ;;
*) die "BUILDER=$builder: docker, podman or buildah" ;;
esac
echo "$tag"
