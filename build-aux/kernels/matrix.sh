#!/usr/bin/env bash
# Boots several kernels in virtual machines and records how kubesock fares on each:
#   tests/kernels/results/SERIES.json, one for each kernel, and docs/compatibility.md, made from them.
# matrix.sh [SERIES...]     default: 5.10 6.1 6.12 6.18 newest
# Needs Debian, root (for packages and files of the virtual machine), and patience: it emulates. All that it
# makes is below build/kernels, but for the packages qemu-system-x86, busybox-static and kmod.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$PWD/build/kernels
results=$PWD/tests/kernels/results
PACKAGES="qemu-system-x86 busybox-static kmod e2fsprogs iproute2"
VIRTME=virtme-ng==1.42
SUITES="bullseye bullseye-security bookworm bookworm-security trixie trixie-security trixie-backports sid"
TIMEOUT=${TIMEOUT:-3600} # seconds for one kernel

say() { printf 'kernels: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

install_packages() {
	local package missing=()
	for package in $PACKAGES; do
		case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true) in
		*' ok installed') ;;
		*) missing+=("$package") ;;
		esac
	done
	[ ${#missing[@]} != 0 ] || return 0
	say "installing ${missing[*]}"
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null </dev/null ||
		die "apt-get could not install ${missing[*]}: run apt-get update, then this again"
}

make_venv() {
	[ -x "$work/venv/bin/vng" ] && return 0
	say "installing $VIRTME"
	/usr/bin/python3 -m venv "$work/venv"
	"$work/venv/bin/pip" --disable-pip-version-check -q install "$VIRTME" || die "pip could not install $VIRTME"
}

# Other releases' kernels, from the mirror that this machine uses; its own package lists stay as they are.
make_lists() {
	local suite archive security
	archive=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(ORIGIN)' 'Created-By: Packages' |
		awk '$3 == "Debian" && $2 !~ /-/ { print $1; exit }')
	security=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(ORIGIN)' 'Created-By: Packages' |
		awk '$3 == "Debian" && $2 ~ /-security$/ { print $1; exit }')
	[ -n "$archive" ] || die "no Debian archive among this machine's package sources"
	mkdir -p "$work"/apt/{lists/partial,cache/archives/partial}
	for suite in $SUITES; do
		case $suite in
		*-security) [ -z "$security" ] || printf '%s %s\n' "$security" "$suite" ;;
		*) printf '%s %s\n' "$archive" "$suite" ;;
		esac
	done | sed 's,\(.*\) \(.*\),deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \1 \2 main,' >"$work/apt/sources.list"
	apt=(-o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
		-o Dir::State::lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache"
		-o Acquire::Languages=none -o APT::Sandbox::User=root)
	say "reading package lists"
	apt-get "${apt[@]}" -qq update || say "some lists could not be read: going on with the others"
}

candidates() { # candidates SERIES: packages of generic kernels, newest first
	local pattern
	case $1 in
	newest) pattern='^linux-image-[0-9]+\.[0-9]+\.' ;;
	*) pattern="^linux-image-${1//./\\.}\\." ;;
	esac
	apt-cache "${apt[@]}" pkgnames linux-image- | grep -E "$pattern" |
		grep -E -- '-amd64$' | grep -vE -- '-(cloud|rt)-amd64$|-dbg$|-unsigned$' | sort -rV
}

fetch() { # fetch SERIES: unpack a kernel into $work/SERIES, and tell its image
	local series=$1 package name part parts folder=$work/$1
	image_of "$folder" && return 0
	for package in $(candidates "$series" | head -n 4); do # a mirror may list what it no longer has
		rm -rf "$folder"
		mkdir -p "$folder/packages"
		name=${package#linux-image-}
		parts=("$package")
		for part in "linux-binary-$name" "linux-modules-$name"; do # apart since 6.19
			[ -z "$(apt-cache "${apt[@]}" pkgnames "$part" | grep -x "$part")" ] || parts+=("$part")
		done
		say "$series: fetching $package"
		(cd "$folder/packages" && apt-get "${apt[@]}" -qq download "${parts[@]}") || continue
		for part in "$folder"/packages/*.deb; do dpkg -x "$part" "$folder"; done
		rm -rf "$folder/packages"
		image_of "$folder" && return 0
	done
	return 1
}

image_of() {
	local image
	for image in "$1"/boot/vmlinuz-* "$1"/usr/lib/modules/*/vmlinuz; do
		[ ! -e "$image" ] || { echo "$image"; return 0; }
	done
	return 1
}

run() { # run SERIES IMAGE: boot it, run the tests inside, keep what they wrote
	local series=$1 image=$2 log=$work/$1.log out=$work/$1.raw release
	: >"$out"
	truncate -s 1M "$out"
	say "$series: running $(basename "$image"), see $log"
	PATH=$work/venv/bin:$PATH timeout "$TIMEOUT" vng -r "$image" --disable-kvm --memory 2G --cpus 2 --verbose \
		--qemu-opts="-drive file=$work/root.img,if=virtio,format=raw,snapshot=on -drive file=$out,if=virtio,format=raw" \
		-- bash "$PWD/build-aux/kernels/guest.sh" "$PWD" .venv/bin/python -m tests.kernels.guest /dev/vdb \
		>"$log" 2>&1 </dev/null || true
	release=$(.venv/bin/python -m tests.kernels.document --keep "$out" "$results") ||
		{ say "$series: no result, see the end of $log"; return 1; }
	say "$series: $release"
}

[ "$(id -u)" = 0 ] || die "run it as root"
command -v apt-get >/dev/null || die "this takes kernels from Debian's archive: run it on Debian"
mkdir -p "$work" "$results"
install_packages
make_venv
make_lists
say "making the disk"
build-aux/kernels/root.sh "$work/root.img"
failed=0
for series in "${@:-5.10 6.1 6.12 6.18 newest}"; do
	for one in $series; do
		image=$(fetch "$one") || { say "$one: no such kernel in reach"; failed=1; continue; }
		run "$one" "$image" || failed=1
	done
done
.venv/bin/python -m tests.kernels.document "$results" docs/compatibility.md
exit $failed
