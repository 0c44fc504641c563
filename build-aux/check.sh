#!/usr/bin/env bash
# Every check that reads the code without running it, side by side. One line each; the output only of what failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

bin=$PWD/.venv/bin
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
names=()

start() { # start NAME COMMAND...
	local name=$1
	shift
	names+=("$name")
	{
		local began=$EPOCHREALTIME
		"$@" >"$out/$name.log" 2>&1
		local code=$? ended=$EPOCHREALTIME
		echo "$code $(((${ended/[.,]/} - ${began/[.,]/}) / 100000))" >"$out/$name.end"
	} &
}

mapfile -t c_files < <(find bpf tests -name '*.c' -o -name '*.h')
start types "$bin/mypy" --no-error-summary # the longest first
start imports "$bin/lint-imports" --no-cache
start lint "$bin/ruff" check --quiet
start format "$bin/ruff" format --check --quiet
start c-format "$bin/clang-format" --dry-run -Werror "${c_files[@]}"
wait

failed=0
for name in "${names[@]}"; do
	read -r code tenths <"$out/$name.end"
	seconds=$((tenths / 10)).$((tenths % 10))
	if [ "$code" = 0 ]; then
		printf 'ok    %-9s %5ss\n' "$name" "$seconds"
	else
		failed=1
		cat "$out/$name.log"
		printf 'FAIL  %-9s %5ss\n' "$name" "$seconds"
	fi
done
exit $failed
