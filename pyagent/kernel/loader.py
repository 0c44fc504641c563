"""From C in `bpf/` to loaded programs: definitions for this kernel, a compile child, fds of the result."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel import features
from pyagent.kernel.map_set import MapSet
from pyagent.kernel.source_text import program_text
from pyagent.model.failures import CompilerMissing, KernelRefused, sanitized

COMPILE_SECONDS = 120


class Unit:
    """One translation unit of `bpf/` for one set of maps on this kernel."""

    def __init__(self, unit: str, maps: MapSet, extra: Mapping[str, str] | None = None) -> None:
        definitions = {
            "PINS": json.dumps(str(maps.folder)),
            "MAX_BACKENDS": str(maps.specs["backends"].max_entries),
            "HAVE_SET_RETVAL": str(int(features.has_set_retval())),
            "HAVE_COARSE_CLOCK": str(int(features.has_coarse_clock())),
            **(extra or {}),
        }
        self.name = unit
        self.text = program_text(unit, definitions)

    @property
    def tag(self) -> int:
        """64 bits that change with the source, the definitions and the maps' folder."""
        return int.from_bytes(hashlib.sha256(self.text.encode()).digest()[:8])

    def load(self, programs: Mapping[str, tuple[int, int]], staging: Path) -> dict[str, int]:
        """Compile and load.

        Args:
            programs: name -> (program type, attach type).
            staging: folder on the BPF file system for pins in passing; emptied before and after.

        Returns:
            Name -> fd of the loaded program.

        Raises:
            CompilerMissing: BCC is not there. KernelRefused: with the compiler's or the verifier's words.
        """
        _empty(staging)
        staging.mkdir(mode=0o700)
        job = {
            "text": self.text,
            "programs": {name: list(types) for name, types in programs.items()},
            "staging": str(staging),
            "parent": os.getpid(),
        }
        try:
            answer = self._run_child(job)
            return {name: bpf.obj_get(path) for name, path in answer["pins"].items()}
        finally:
            _empty(staging)

    def _run_child(self, job: dict[str, object]) -> dict[str, dict[str, str]]:
        child = subprocess.run(
            [sys.executable, "-m", "pyagent.kernel.compile"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS,
            check=False,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
        try:
            answer = json.loads(child.stdout)
        except ValueError:
            raise KernelRefused(
                f"compile {self.name}: the compiler ended with {child.returncode}: {_tail(child.stderr)}"
            ) from None
        if "pins" in answer:
            return dict(answer)
        if answer["error"] == "missing":
            raise CompilerMissing(answer["message"])
        if answer["error"] == "compile":
            raise KernelRefused(f"compile {self.name}: {_tail(child.stderr) or answer['message']}")
        refusal = features.sock_addr_error()
        remedy = features.explain_errno(refusal) if refusal else "report this kernel with the text above"
        raise KernelRefused(
            f"load {self.name}, program {answer['program']}: {answer['message']};"
            f" {_tail(child.stderr)}; {remedy}"
        )


def _tail(text: str, lines: int = 4) -> str:
    return " | ".join(sanitized(line, 200)[1:-1] for line in text.strip().splitlines()[-lines:])


def _empty(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
