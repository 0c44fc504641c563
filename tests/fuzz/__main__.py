"""`python -m tests.fuzz TARGET SECONDS`: look for bytes that break a target's promise, guided by coverage.

Starts from the seeds in tests/fuzz/seeds; what reaches new code is kept in .fuzz/TARGET from run to run, and
what breaks the promise in .fuzz/found. `python -m tests.fuzz --all SECONDS` does so for each target in turn,
for all of that time with objects, for a tenth of it with each other. `python -m tests.fuzz --seeds` takes
over into tests/fuzz/seeds the few of .fuzz that reach code which no seed reaches.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.fuzz import SEEDS

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".fuzz"
LONGEST = 16_384  # bytes of an input
LONGEST_SEED = 2_048
MAIN = "objects"  # the decoder of what the API server says


def fuzz(name: str, seconds: int) -> None:
    """Does not return: libFuzzer ends the process."""
    _run(
        name,
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-artifact_prefix={KEPT / 'found'}/{name}-",
        "-timeout=20",
        "-rss_limit_mb=1500",
        "-print_final_stats=1",
        str(KEPT / name),
        str(SEEDS / name),
    )


def merge(name: str) -> None:
    """Does not return. libFuzzer starts itself anew by the first argument, which a shell reads."""
    sys.argv[0] = f"{sys.executable} -m tests.fuzz --inner {name}"
    _run(name, "-set_cover_merge=1", f"-max_len={LONGEST_SEED}", str(SEEDS / name), str(KEPT / name))


def _run(name: str, *arguments: str) -> None:
    import atheris

    with atheris.instrument_imports(include=["pyagent"]):
        from tests.fuzz.targets import TARGETS
    (KEPT / name).mkdir(parents=True, exist_ok=True)
    (KEPT / "found").mkdir(exist_ok=True)
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def fuzz_all(seconds: int) -> int:
    """Each target in a process of its own; 1 if one of them failed."""
    names = sorted(folder.name for folder in SEEDS.iterdir())
    failed = []
    for name in names:
        print(f"fuzz: {name}", flush=True)
        share = seconds if name == MAIN else max(1, seconds // 10)
        command = [sys.executable, "-m", "tests.fuzz", name, str(share)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        facts = [line for line in done.stderr.splitlines() if line.startswith("stat::")]
        print("\n".join(facts[:2]), flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stderr[-4000:], flush=True)
    if failed:
        print(f"fuzz: failed: {', '.join(failed)}; inputs are in {KEPT / 'found'}")
        print(
            "fuzz: mend the code, then keep the input in tests/fuzz/seeds under a name that says what it was"
        )
    return 1 if failed else 0


def take_over_seeds() -> int:
    """What was found in earlier runs, as seeds; 1 if a target cannot run them."""
    failed = 0
    for name in sorted(folder.name for folder in SEEDS.iterdir()):
        before = set((SEEDS / name).iterdir())
        command = [sys.executable, "-m", "tests.fuzz", "--merge", name]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            failed = 1
            print(done.stderr[-2000:])
        print(f"fuzz: {name}: {len(set((SEEDS / name).iterdir()) - before)} new seeds", flush=True)
    return failed


def main() -> int:
    match sys.argv[1:]:
        case ["--all", seconds]:
            return fuzz_all(int(seconds))
        case ["--seeds"]:
            return take_over_seeds()
        case ["--merge", name]:
            merge(name)
        case ["--inner", name, *arguments]:
            _run(name, *arguments)
        case [name, seconds]:
            fuzz(name, int(seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
