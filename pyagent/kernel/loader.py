"""From C in `bpf/` to loaded programs: definitions for this kernel, a compile child or its cache, fds."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel import features
from pyagent.kernel.compile import LOAD_IMMEDIATE, PSEUDO_MAP_FD
from pyagent.kernel.map_set import MapSet
from pyagent.kernel.program_cache import ProgramCache
from pyagent.kernel.source_text import program_text
from pyagent.model.failures import CompilerMissing, KernelRefused, sanitized

COMPILE_SECONDS = 120
_INSTRUCTION = struct.Struct("=BBhi")
_LINES = 4


class Unit:
    """One translation unit of `bpf/` for one set of maps on this kernel."""

    def __init__(
        self,
        unit: str,
        maps: MapSet,
        cache: ProgramCache | None = None,
        extra: Mapping[str, str] | None = None,
        earlier: MapSet | None = None,
        earlier_names: Sequence[str] = (),
    ) -> None:
        """
        Args:
            cache: where instructions are kept from one start to the next; None: always compile.
            extra: more definitions.
            earlier: another set that it uses too.
            earlier_names: maps of that; in C their names begin with `earlier_`.
        """
        definitions = {
            "MAX_BACKENDS": str(maps.specs["backends"].max_entries),
            "HAVE_SET_RETVAL": str(int(features.has_set_retval())),
            "HAVE_COARSE_CLOCK": str(int(features.has_coarse_clock())),
            **(extra or {}),
        }
        self.name = unit
        self._maps = maps
        self._earlier = {name: earlier for name in earlier_names if earlier}
        self._cache = cache
        self._text = program_text(unit, definitions)
        self._identity = hashlib.sha256(self._text.encode()).digest()

    @property
    def tag(self) -> int:
        """64 bits that change with the source, the definitions and the set of maps."""
        named = self._identity + os.fsencode(self._maps.folder)
        return int.from_bytes(hashlib.sha256(named).digest()[:8])

    def load(self, programs: Mapping[str, bpf.ProgramKind]) -> dict[str, int]:
        """Instructions from the cache or the compiler, loaded.

        Returns:
            Name -> fd of the loaded program.

        Raises:
            CompilerMissing: BCC is not there. KernelRefused: with the compiler's or the verifier's words.
        """
        names = sorted(programs)
        compiled = self._cache.get(self._identity, names) if self._cache else None
        if compiled is None:
            compiled = self._compile(names)
            if self._cache:
                self._cache.put(self._identity, compiled)
        return {name: self._load(name, compiled[name], kind) for name, kind in programs.items()}

    def _load(self, name: str, instructions: bytes, kind: bpf.ProgramKind) -> int:
        fds = [self._maps.fd(spec) for spec in self._maps.specs]
        fds += [maps.fd(name) for name, maps in self._earlier.items()]
        changed = bytearray(instructions)
        for at in range(0, len(changed), _INSTRUCTION.size):
            code, registers, offset, place = _INSTRUCTION.unpack_from(changed, at)
            if code == LOAD_IMMEDIATE and registers >> 4 == PSEUDO_MAP_FD:
                _INSTRUCTION.pack_into(changed, at, code, registers, offset, fds[place])
        try:
            return bpf.program_load(kind, bytes(changed), name)
        except OSError as error:
            refusal = features.sock_addr_error()
            remedy = features.explain_errno(refusal or error)
            words = _tail("\n".join(getattr(error, "__notes__", [])))
            causes = "; ".join(filter(None, (error.strerror, words, remedy)))
            raise KernelRefused(f"load {self.name}, program {name}: {causes}") from error

    def _compile(self, names: list[str]) -> dict[str, bytes]:
        job = {
            "text": self._text,
            "programs": names,
            "maps": [*self._maps.specs, *(f"earlier_{name}" for name in self._earlier)],
            "parent": os.getpid(),
        }
        try:
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
        except subprocess.TimeoutExpired:
            raise KernelRefused(
                f"compile {self.name}: the compiler took more than {COMPILE_SECONDS:g} s and was ended;"
                " has the agent enough CPU time?"
            ) from None
        try:
            answer = json.loads(child.stdout)
        except ValueError:
            raise KernelRefused(
                f"compile {self.name}: the compiler ended with {child.returncode}: {_tail(child.stderr)}"
            ) from None
        if "programs" in answer:
            return {name: base64.b64decode(text) for name, text in answer["programs"].items()}
        if answer["error"] == "missing":
            raise CompilerMissing(answer["message"])
        words = _errors(child.stderr) or _tail(child.stderr) or answer["message"]
        raise KernelRefused(f"compile {self.name}: {words}")


def _errors(text: str) -> str:
    """The first of the compiler's errors: later ones often follow from them."""
    return _joined([line for line in text.splitlines() if ": error: " in line][:_LINES])


def _tail(text: str) -> str:
    return _joined(text.strip().splitlines()[-_LINES:])


def _joined(lines: Sequence[str]) -> str:
    return " | ".join(sanitized(line, 200)[1:-1] for line in lines)
