#!/usr/bin/env bash
# Makes a disk image with all that the tests need in a virtual machine: shell, Python, BCC, this checkout.
# The machine's own files come over 9p, where starting Python takes minutes under emulation.
#   root.sh IMAGE
set -euo pipefail
cd "$(dirname "$0")/../.."

PATH=/usr/sbin:/usr/bin:/sbin:/bin # the distribution's own, not what lies before it
image=$1
root=$image.d
PROGRAMS="bash sh env mount ip tc sysctl modprobe kmod python3 python3.11 id sleep ls cat mkdir umount"
PYTHON=/usr/bin/python3
NOT_NEEDED="mypy* *__mypyc* pip setuptools clang_format grimp importlinter ruff* kubernetes/docs"

put() { # put PATH...: what is there, symbolic links followed, at the same place below $root
	local path
	for path in "$@"; do
		[ ! -e "$path" ] || printf '%s\0' "$path"
	done | tar -c -P -h --hard-dereference --null -T - | tar -x -P --transform "s,^,$root," --no-same-owner
}

libraries_of() { ldd "$@" 2>/dev/null | awk '$3 ~ "^/" { print $3 } $1 ~ "^/" && NF == 2 && $1 !~ /:$/ { print $1 }' | sort -u; }

rm -rf "$root" "$image"
mkdir -p "$root"/{proc,sys,dev,run,tmp,var/lib,etc,root,usr/bin,usr/lib/modules,lib64}
ln -s usr/bin "$root/bin"
ln -s usr/lib "$root/lib"
programs=()
for name in $PROGRAMS; do
	path=$(command -v "$name") || { echo "root.sh: $name is not installed" >&2; exit 1; }
	programs+=("$path")
done
stdlib=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
bcc=$("$PYTHON" -c 'import bcc, os; print(os.path.dirname(bcc.__file__))')
libbcc=$(ldconfig -p | awk '$1 == "libbcc.so.0" { print $NF; exit }')
mapfile -t libraries < <(libraries_of "${programs[@]}" "$libbcc" "$stdlib"/lib-dynload/*.so \
	"$(dirname "$libbcc")"/libnss_files.so.2 .venv/lib/python3*/site-packages/*.so)
put "${programs[@]}" "${libraries[@]}" "$libbcc" "$(dirname "$libbcc")"/lib{rt,dl,pthread,util}.so.? "$stdlib" "$bcc" /usr/include/linux /usr/include/asm-generic \
	/usr/include/"$(uname -m)"-linux-gnu/asm /etc/passwd /etc/group /etc/nsswitch.conf /etc/protocols /etc/services /etc/ld.so.cache
mkdir -p "$root$PWD"
git -c safe.directory="$PWD" ls-files -z --cached --others --exclude-standard |
	tar -c --null --ignore-failed-read -T - 2>/dev/null | tar -x -C "$root$PWD"
# shellcheck disable=SC2046,SC2086 # a list of options
tar -c $(printf -- '--exclude=%s ' $NOT_NEEDED) .venv | tar -x -C "$root$PWD"
mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$root" "$image" "$(($(du -sm "$root" | cut -f1) * 5 / 4 + 100))M"
rm -rf "$root"
