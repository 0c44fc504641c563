"""Other builds of kubesock: copies of this source tree with a difference."""

from __future__ import annotations

import shutil
from pathlib import Path

from pyagent.kernel.source_text import sources_folder

PACKAGE = Path(__file__).parents[3] / "pyagent"


class Build:
    """A copy of the sources below `folder`."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(PACKAGE, folder / "pyagent", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(sources_folder(), folder / "bpf")
        self.folder = folder

    def replace(self, path: str, old: str, new: str) -> None:
        """Change a text that a file has once.

        Raises:
            AssertionError: it has not; the build must follow the sources.
        """
        file = self.folder / path
        text = file.read_text()
        assert text.count(old) == 1, f"{path} has {old!r} {text.count(old)} times"
        file.write_text(text.replace(old, new))

    @property
    def launcher(self) -> tuple[str, ...]:
        """What stands before a command line of this interpreter to run this build."""
        return ("env", f"--chdir={self.folder}", f"PYTHONPATH={self.folder}", "PYTHONDONTWRITEBYTECODE=1")


def other_programs(folder: Path) -> Build:
    """The same layout, other programs."""
    made = Build(folder)
    made.replace("bpf/lib/choice.h", "#define SLOT_SCAN 64", "#define SLOT_SCAN 60")
    return made


def other_layout(folder: Path) -> Build:
    """Another layout: fields more and elsewhere in everything that sockets, clients and backends have."""
    made = other_programs(folder)
    python, c = "pyagent/datapath/layout.py", "bpf/contract.h"
    made.replace(python, "LAYOUT_VERSION = 1\n", "LAYOUT_VERSION = 2\n")
    made.replace(c, "#define LAYOUT_VERSION 1\n", "#define LAYOUT_VERSION 2\n")
    for name, following in (
        ("origin", '\n    Field("frontend", "16s"),'),
        ("datagram_origin", '\n    Field("frontend", "16s"),'),
        ("affinity", ' Field("backend", "Q")'),
        ("overflow", ' Field("frontend", "16s")'),
    ):
        made.replace(python, f'"{name}",{following}', f'"{name}", Field("mark", "Q"),{following}')
        made.replace(c, f"struct {name} {{\n", f"struct {name} {{\n\t__u64 mark;\n")
    made.replace(
        "pyagent/kernel/connections.py", "        frontend, backend, ", "        _mark, frontend, backend, "
    )
    made.replace(python, '    Field("node", "I"),\n)', '    Field("node", "I"),\n    Field("mark", "Q"),\n)')
    made.replace(
        c, "\t__u32 service_port;\n\t__u32 node;\n", "\t__u32 service_port;\n\t__u32 node;\n\t__u64 mark;\n"
    )
    made.replace("pyagent/datapath/service_port_plan.py", '"=18sHIII"', '"=18sHIII8x"')
    for path, last in (("decoded.py", "service_port, node"), ("evaluate.py", "owner, node")):
        made.replace(f"pyagent/datapath/{path}", f"{last} = BACKEND.unpack(", f"{last}, _ = BACKEND.unpack(")
    return made
