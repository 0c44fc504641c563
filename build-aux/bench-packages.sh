#!/usr/bin/env bash
# What only `make bench` needs: a C compiler for its client, nft and iptables for the rules that it compares with.
# Not part of setup.sh, because nobody else needs a compiler. Without root it names what to install; the bench
# itself says what it then leaves out.
set -euo pipefail

say() { printf 'bench: %s\n' "$*" >&2; }

missing=()
command -v "${CC:-cc}" >/dev/null || missing+=(gcc libc6-dev)
PATH=$PATH:/usr/sbin:/sbin
for tool in nft:nftables iptables:iptables; do
	command -v "${tool%:*}" >/dev/null || missing+=("${tool#*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
	say "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	install=(apt-get install -qq -y --no-install-recommends "${missing[@]}")
	"${install[@]}" >/dev/null 2>&1 </dev/null && exit 0
	apt-get update -qq </dev/null || say "apt-get update failed; trying with the lists that are there"
	"${install[@]}" >/dev/null </dev/null && exit 0
	say "apt-get could not install ${missing[*]}: see its message above"
else
	say "missing: ${missing[*]}. Install as root, then run this again:"
	say "  Debian, Ubuntu: apt-get install --no-install-recommends ${missing[*]}"
	say "  Fedora:         dnf install gcc glibc-devel nftables iptables-nft"
fi
