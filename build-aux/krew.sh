#!/usr/bin/env bash
# krew.sh HOMEPAGE URL: dist/kubectl-kubesock.tar.gz and dist/kubesock.yaml, the manifest for krew that names it.
# The same inputs give the same archive. URL is where the archive will be: "@VERSION@" in it is replaced.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# = 2 ] || { echo "usage: krew.sh HOMEPAGE URL" >&2 && exit 2; }
version=v$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
out=${DIST:-dist}
mkdir -p "$out"
tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=a+rX,u+w,go-w --format=ustar \
	--directory=. --transform='s,.*/,,' deploy/kubectl/kubectl-kubesock LICENSE | gzip -n -9 >"$out/kubectl-kubesock.tar.gz"
sum=$(sha256sum "$out/kubectl-kubesock.tar.gz" | cut -d ' ' -f 1)
url=${2//@VERSION@/$version}
sed -e '1d' -e "s|@VERSION@|$version|" -e "s|@HOMEPAGE@|$1|" -e "s|@URL@|$url|" -e "s|@SHA256@|$sum|" \
	deploy/kubectl/krew.yaml >"$out/kubesock.yaml"
echo "$out/kubesock.yaml"
