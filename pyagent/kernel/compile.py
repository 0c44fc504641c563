"""Compiles BPF C with BCC; runs as a child process of its own.

LLVM takes some 60 MB that it never gives back, so they go with the child. The child dies with its parent,
inherits none of its files, and loads no program: it answers with instructions, which the parent loads.

Run as `python -m pyagent.kernel.compile`: a JSON job on standard input, a JSON answer on standard output.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import signal
import struct
import sys
from collections.abc import Sequence
from typing import Any

from pyagent.kernel.source_text import sources_folder

PR_SET_PDEATHSIG = 1
LOAD_IMMEDIATE = 0x18  # BPF_LD | BPF_IMM | BPF_DW
PSEUDO_MAP_FD = 1
MISSING = (
    "BCC's Python binding is missing: install python3-bpfcc (Debian, Ubuntu) or python3-bcc (Fedora) and use"
    " the distribution's own python3, with a venv made by --system-site-packages; the `bcc` of the Python"
    " package index is something else"
)
_INSTRUCTION = struct.Struct("=BBhi")


def compile_text(job: dict[str, Any]) -> dict[str, Any]:
    """Compile `job["text"]`.

    Args:
        job: text: C source; programs: names of functions; maps: names of the maps that it uses.

    Returns:
        {"bcc": version, "programs": {name: base64 of instructions}}, where a reference to a map carries the
        map's place in `job["maps"]`; or {"error": "missing" or "compile", "message": text}.
    """
    try:
        os.environ["BCC_KERNEL_SOURCE"] = str(sources_folder() / "headers")
        import bcc

        if not hasattr(bcc, "BPF"):
            return {"error": "missing", "message": MISSING}
    except ImportError:
        return {"error": "missing", "message": MISSING}
    try:
        module = bcc.BPF(text=job["text"], cflags=["-Wno-unknown-attributes"])
    except Exception as error:  # noqa: BLE001  BCC raises bare Exception
        return {"error": "compile", "message": str(error)}
    fds = [bcc.lib.bpf_table_fd(module.module, name.encode()) for name in job["maps"]]
    bcc.lib.bpf_function_start.restype = ctypes.c_void_p
    compiled = {}
    for name in job["programs"]:
        start = bcc.lib.bpf_function_start(module.module, name.encode())
        size = bcc.lib.bpf_function_size(module.module, name.encode())
        if not start:
            return {"error": "compile", "message": f"no function {name}"}
        instructions = _with_map_places(ctypes.string_at(start, size), fds)
        compiled[name] = base64.b64encode(instructions).decode()
    return {"bcc": bcc.__version__, "programs": compiled}


def _with_map_places(instructions: bytes, fds: Sequence[int]) -> bytes:
    changed = bytearray(instructions)
    for at in range(0, len(changed), _INSTRUCTION.size):
        code, registers, offset, immediate = _INSTRUCTION.unpack_from(changed, at)
        if code == LOAD_IMMEDIATE and registers >> 4 == PSEUDO_MAP_FD:
            _INSTRUCTION.pack_into(changed, at, code, registers, offset, fds.index(immediate))
    return bytes(changed)


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    job = json.load(sys.stdin)
    if os.getppid() != job["parent"]:
        sys.exit("the parent is gone")
    # The compiler's messages go to descriptor 2; the answer has descriptor 1.
    json.dump(compile_text(job), sys.stdout)


if __name__ == "__main__":
    main()
