"""Writes docs/flags.md from the table that the command line is made from: `make flags`."""

from __future__ import annotations

from pathlib import Path

from pyagent.agent.ignored_options import ALL_OPTIONS
from pyagent.agent.options import OPTIONS, Kind, Option

HEAD = """# Flags of `kubesock run`

Made by `make flags` from `pyagent/agent/options.py`. A flag wins over `--config`, that over the environment,
that over the default; `kubesock status --config` shows what is in force and where it came from.

"""


def document() -> str:
    """The whole page."""
    parts = (
        ("## kubesock's own", [o for o in OPTIONS if o.kind is Kind.OURS]),
        ("## kube-proxy's, with its meaning", [o for o in OPTIONS if o.kind is Kind.KUBE_PROXY]),
    )
    ignored = sorted({o.flag for o in ALL_OPTIONS if o.kind is Kind.IGNORED})
    tables = "\n\n".join(f"{title}\n\n{_table(options)}" for title, options in parts)
    listed = ", ".join(f"`{flag}`" for flag in ignored)
    return f"{HEAD}{tables}\n\n## kube-proxy's, accepted without effect\n\n{listed}\n"


def _table(options: list[Option]) -> str:
    rows = ["| flag | default | field of KubeProxyConfiguration | what it does |", "|---|---|---|---|"]
    rows += [f"| `{_typed(o)}` | {_code(o.default)} | {_code(o.field)} | {_cell(o.help)} |" for o in options]
    return "\n".join(rows)


def _typed(option: Option) -> str:
    metavar = option.metavar or "|".join(option.choices)
    return _cell(f"{option.flag} {metavar}".strip())


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    Path("docs/flags.md").write_text(document())
