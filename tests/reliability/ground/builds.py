"""Other builds of kubesock: copies of this source tree with a difference."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from pyagent.kernel.source_text import sources_folder

VERSION = 1000
PACKAGE = Path(__file__).parents[3] / "pyagent"


class Build:
    """A copy of the sources below `folder`."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(PACKAGE, folder / "pyagent", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(sources_folder(), folder / "bpf")
        self.folder = folder

    def change(self, path: str, pattern: str, new: str) -> None:
        """Change a text that a file has once; `\\g<0>` stands for it.

        Raises:
            AssertionError: it has not; the build must follow the sources.
        """
        file = self.folder / path
        text, count = re.subn(pattern, new, file.read_text())
        assert count == 1, f"{path} has {pattern!r} {count} times"
        file.write_text(text)

    @property
    def launcher(self) -> tuple[str, ...]:
        """What stands before a command line of this interpreter to run this build."""
        return ("env", f"--chdir={self.folder}", f"PYTHONPATH={self.folder}", "PYTHONDONTWRITEBYTECODE=1")


def other_programs(folder: Path) -> Build:
    """The same layout, other programs."""
    made = Build(folder)
    made.change("bpf/lib/choice.h", r"#define SLOT_SCAN \d+", "#define SLOT_SCAN 60")
    return made


def other_layout(folder: Path) -> Build:
    """Another layout: what hooks keep of sockets and clients, and `config`, begin with a field more."""
    made = other_programs(folder)
    python, c = "pyagent/datapath/layout.py", "bpf/contract.h"
    made.change(python, r"\nLAYOUT_VERSION = \d+\n", f"\nLAYOUT_VERSION = {VERSION}\n")
    made.change(c, r"#define LAYOUT_VERSION \d+\n", f"#define LAYOUT_VERSION {VERSION}\n")
    for name in ("origin", "datagram_origin", "affinity", "overflow", "config"):
        made.change(python, rf'CStruct\(\s*"{name}",', r'\g<0> Field("mark", "Q"),')
        made.change(c, rf"\nstruct {name} {{\n", r"\g<0>\t__u64 mark;\n")
    # Who takes records apart by the order of their fields.
    made.change("pyagent/kernel/connections.py", r"\n +frontend, backend, frontend_port", r"_mark, \g<0>")
    return made
