"""`python -m tests.fuzz TARGET SECONDS`: look for bytes that break a target's promise, guided by coverage.

Starts from the seeds in tests/fuzz/seeds; what reaches new code is kept in .fuzz/TARGET from run to run, and
what breaks the promise in .fuzz/found. `python -m tests.fuzz --all SECONDS` does so for each target in turn.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.fuzz import SEEDS

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".fuzz"
LONGEST = 16_384  # bytes of an input


def fuzz(name: str, seconds: int) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["pyagent"]):
        from tests.fuzz.targets import TARGETS
    (KEPT / name).mkdir(parents=True, exist_ok=True)
    (KEPT / "found").mkdir(exist_ok=True)
    arguments = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-artifact_prefix={KEPT / 'found'}/{name}-",
        "-timeout=20",
        "-rss_limit_mb=1500",
        "-print_final_stats=1",
        str(KEPT / name),
        str(SEEDS / name),
    ]
    atheris.Setup(arguments, TARGETS[name])
    atheris.Fuzz()


def fuzz_all(seconds: int) -> int:
    """Each target for its share of the time, in a process of its own; 1 if one of them failed."""
    names = sorted(folder.name for folder in SEEDS.iterdir())
    failed = []
    for name in names:
        print(f"fuzz: {name}", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", name, str(seconds // len(names))]
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


def main() -> int:
    name, seconds = sys.argv[1], int(sys.argv[2])
    if name == "--all":
        return fuzz_all(seconds)
    fuzz(name, seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
