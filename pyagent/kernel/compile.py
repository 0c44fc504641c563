"""Compiles BPF C with BCC and pins the programs; runs as a child process of its own.

LLVM takes some 60 MB that it never gives back, so they go with the child. The child dies with its parent,
inherits none of its files, and leaves nothing but pins in the staging folder it was given.

Run as `python -m pyagent.kernel.compile`: a JSON job on standard input, a JSON answer on standard output.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.source_text import sources_folder

PR_SET_PDEATHSIG = 1
MISSING = (
    "BCC's Python binding is missing: install python3-bpfcc (Debian, Ubuntu) or python3-bcc (Fedora) and use"
    " the distribution's own python3, with a venv made by --system-site-packages; the `bcc` of the Python"
    " package index is something else"
)


def compile_and_pin(job: dict[str, Any]) -> dict[str, Any]:
    """Compile `job["text"]`, load each of `job["programs"]` and pin it.

    Args:
        job: text: C source; programs: name -> [program type, attach type]; staging: folder for the pins.

    Returns:
        {"pins": {name: path}} or {"error": kind, "message": text}; kind is "missing", "compile" or "load".
    """
    try:
        os.environ["BCC_KERNEL_SOURCE"] = str(sources_folder() / "headers")
        import bcc

        if not hasattr(bcc, "BPF"):
            return {"error": "missing", "message": MISSING}
    except ImportError:
        return {"error": "missing", "message": MISSING}
    try:
        module = bcc.BPF(text=job["text"], cflags=["-Wno-unknown-attributes", *job.get("cflags", [])])
    except Exception as error:  # noqa: BLE001  BCC raises bare Exception
        return {"error": "compile", "message": str(error)}
    pins = {}
    for name, (program_type, attach_type) in job["programs"].items():
        try:
            function = module.load_func(name, program_type, None, attach_type=attach_type)
        except Exception as error:  # noqa: BLE001  likewise
            return {"error": "load", "program": name, "message": str(error)}
        path = Path(job["staging"]) / name
        bpf.obj_pin(function.fd, str(path))
        pins[name] = str(path)
    return {"pins": pins}


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    job = json.load(sys.stdin)
    if os.getppid() != job["parent"]:
        sys.exit("the parent is gone")
    # BCC writes the compiler's and the verifier's messages to descriptor 2; the answer has descriptor 1.
    json.dump(compile_and_pin(job), sys.stdout)


if __name__ == "__main__":
    main()
