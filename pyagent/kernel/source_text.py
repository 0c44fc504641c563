"""The C that BCC gets: our own includes expanded as text, definitions in front, layout checks behind.

BCC rewrites `map.lookup()` only in the main file, so a header that uses maps cannot stay a header.
`#line` keeps compiler messages at the right file and line.
"""

from __future__ import annotations

import re
from pathlib import Path

from pyagent.datapath.layout import static_assertions
from pyagent.model.failures import KubesockError

_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"\s*$')


def sources_folder() -> Path:
    """Where `translate.c` lies: in the wheel, else in the source tree."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "_bpf", package.parent / "bpf"):
        if (candidate / "translate.c").is_file():
            return candidate
    raise KubesockError(f"the BPF sources are missing beside {package}; install kubesock again")


def expand(path: Path, folder: Path, seen: set[Path] | None = None) -> str:
    """The text of `path` with each `#include "file"` (relative to `folder`) replaced by that file, once."""
    seen = set() if seen is None else seen
    lines = [f'#line 1 "{path.relative_to(folder)}"']
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        include = _INCLUDE.match(line)
        if include is None:
            lines.append(line)
            continue
        included = folder / include.group(1)
        if included not in seen:
            seen.add(included)
            lines.append(expand(included, folder, seen))
        lines.append(f'#line {number + 1} "{path.relative_to(folder)}"')
    return "\n".join(lines)


def program_text(unit: str, definitions: dict[str, str]) -> str:
    """Complete C of one translation unit of `bpf/`, checked against the Python layout when compiled."""
    folder = sources_folder()
    defines = "".join(f"#define {name} {value}\n" for name, value in sorted(definitions.items()))
    return f'{defines}{expand(folder / unit, folder)}\n#line 1 "layout.py"\n{static_assertions()}'
