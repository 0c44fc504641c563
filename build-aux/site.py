"""Builds the documents as a site: build/site. Links and headings that lead nowhere are errors.

Documents link to files beside them, code and manifests too. All that is linked is laid out in
build/site-source as it lies in the tree, so that the same links work on the site.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "build" / "site-source"
TOP = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")


def documents() -> list[Path]:
    """Every document, relative to the root."""
    found = [path for folder in ("docs", "bpf", "bench", "vagrant") for path in (ROOT / folder).rglob("*.md")]
    return [Path(name) for name in TOP] + sorted(path.relative_to(ROOT) for path in found)


def stage(target: Path) -> None:
    """Lay the documents out, with what they link to; a link to a folder leads to a list of its files."""
    shutil.rmtree(target, ignore_errors=True)
    for document in documents():
        text = (ROOT / document).read_text(encoding="utf-8")
        place = target / document
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(
            LINK.sub(lambda match, at=document: _link(match, at, target), text), encoding="utf-8"
        )


def _link(match: re.Match[str], document: Path, target: Path) -> str:
    name, anchor = match[1], match[2] or ""
    linked = (ROOT / document.parent / name).resolve()
    if "://" in name or not linked.is_relative_to(ROOT):
        return match[0]
    relative = linked.relative_to(ROOT)
    if linked.is_dir():
        _list_folder(relative, target)
        return f"]({name.rstrip('/')}/index.md)"
    if linked.is_file() and linked.suffix != ".md":
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        if relative.suffix in {".svg", ".png", ".json", ".yaml", ".txt"}:
            shutil.copy(linked, target / relative)
            return match[0]
        shutil.copy(linked, target / f"{relative}.txt")  # a name that every browser shows
        return f"]({name}.txt{anchor})"
    return match[0]


def _list_folder(folder: Path, target: Path) -> None:
    index = target / folder / "index.md"
    index.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"# {folder}", ""]
    for path in sorted((ROOT / folder).iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        if path.suffix != ".md":
            name = path.name if path.suffix in {".svg", ".yaml"} else f"{path.name}.txt"
            shutil.copy(path, index.parent / name)
        else:
            name = path.name
        lines.append(f"- [{path.name}]({name})")
    index.write_text("\n".join(lines) + "\n", encoding="utf-8")


def build() -> int:
    """mkdocs' exit code."""
    stage(SOURCE)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(build())
