#!/usr/bin/env bash
# dist/: all that a release is made of, from a clean tree whose tag, if it has one, is the version.
#   IMAGE=0   without the image, where there is nothing to build one
# Files have the time of the commit: the same commit gives the same wheel, sdist and manifests.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'release: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' pyagent/__init__.py)
[ -z "$(git status --porcelain)" ] || [ "${DIRTY:-0}" = 1 ] || die "the tree has changes: commit them first"
tag=$(git describe --exact-match --tags 2>/dev/null || true)
[ -z "$tag" ] || [ "$tag" = "v$version" ] || die "the tag $tag is not v$version: set __version__ and pyproject.toml"
grep -q "^version = \"$version\"" pyproject.toml || die "pyproject.toml and pyagent/__init__.py name different versions"
grep -q "image: kubesock:$version" deploy/install.yaml || die "deploy/install.yaml is of another version: run make manifests"

SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
rm -rf dist
mkdir dist
.venv/bin/python -m hatchling build --target wheel --target sdist --directory dist >/dev/null 2>&1 ||
	.venv/bin/python -m hatchling build --target wheel --target sdist --directory dist
sed "s/^# Made by .*/# kubesock $version/" deploy/install.yaml >"dist/kubesock-$version-install.yaml"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C deploy -cf - kustomize |
	gzip -n >"dist/kubesock-$version-kustomize.tar.gz"
if [ "${IMAGE:-1}" != 0 ]; then
	TAG=kubesock:$version build-aux/image/build.sh >/dev/null
	archive=dist/kubesock-$version-image.tar
	if docker info >/dev/null 2>&1; then docker save -o "$archive" "kubesock:$version"
	elif command -v podman >/dev/null; then podman save --quiet -o "$archive" "kubesock:$version"
	else buildah push --quiet "kubesock:$version" "docker-archive:$archive:kubesock:$version"; fi
	gzip -n "$archive"
fi
(cd dist && sha256sum -- * >SHA256SUMS)
say "dist/: $(find dist -type f -printf '%f ' | sort)"
