"""An explanation as a picture: the way from the client to the pods, and why every other endpoint is out."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from pyagent.view.render import printable
from pyagent.view.tables import Row

UNBOUNDED = 10_000
"""Columns of what is no terminal: lines are whole, for whoever searches them."""

_IN, _OUT, _STOP, _PASS = "✓", "✗", "■", "→"
_ASCII = str.maketrans("─│├└·✓✗■→", "-||`-+x#>")
_GUIDE = "dim"


def explanation_tree(row: Row, width: int = UNBOUNDED, color: bool = False, utf8: bool = True) -> str:
    """The tree of an explanation, as `explain()` made it, with escape codes for colours if wanted.

    Args:
        width: columns there are.
        utf8: whether more than ASCII can be shown.
    """
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        console.print(_tree(row))
    text = "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
    return text if utf8 else text.translate(_ASCII)


def _tree(row: Row) -> Tree:
    root = Tree(_text((_client(row), "bold")), guide_style=_GUIDE)
    at = root.add(_text(("dials ", ""), (row["dialled"], "bold")))
    if row["rule"] is not None:
        at = at.add(_text((f"rule {row['rule']}", "")))
    frontend, service, held = row["frontend"], row["service"], row["set"]
    if frontend is not None:
        at = at.add(_text((f"{frontend['kind']} {frontend['frontend']}", "")))
    if service is not None:
        about = f" · {service['type']}, {service['family']}, policy {service['policy']}"
        at = at.add(_text((service["service"], "bold cyan"), (about, "")))
    if row["sourceRanges"] is not None:
        at = at.add(_ranges(row["sourceRanges"]))
    if service is not None and service["affinitySeconds"]:
        at = at.add(_affinity(row["affinity"], service["affinitySeconds"]))
    if held is not None:
        number = held["backends"]
        backends = f"{number} backend{'' if number == 1 else 's'}"
        at = at.add(_text((f"set {held['id']}, {held['view']}", ""), (f" · {backends}", "dim")))
    _end(row, at)
    return root


def _end(row: Row, at: Tree) -> None:
    """Where the way ends: refused, left alone, or at the endpoints; those that are out stand there too."""
    translated = row["outcome"].startswith("translated")
    if row["errno"] is not None:
        at.add(_text((f"{_STOP} refused at once with {row['errno']}", "bold red")))
    elif not translated:
        at.add(_text((f"{_PASS} not translated: the kernel dials {row['address']} itself", "bold yellow")))
    for backend in row["backends"]:
        at.add(_backend(backend))
    for endpoint in row["endpoints"]:
        if not endpoint["in"]:
            at.add(_left_out(endpoint))


def _backend(one: Row) -> Text:
    chance = one["probability"]
    odd = one["state"] != "ready"
    return _text(
        (f"{_IN} {100 * chance:5.1f}%  " if chance else f"{_IN}         ", "bold green" if chance else "dim"),
        (one["backend"], "bold green" if chance else "green"),
        (f"  {one['state']}", "yellow" if odd else ""),
        (_where(one), "dim"),
    )


def _left_out(one: Row) -> Text:
    return _text(
        (f"{_OUT}         ", "bold red"),
        (one["endpoint"], "red"),
        (f"  {one['why'] or 'not chosen'}", "yellow"),
        (_where(one, one["slice"]), "dim"),
    )


def _where(one: Row, piece: str = "") -> str:
    """Pod, node, zone and slice, as far as they are known."""
    parts = [f"pod {one['pod']}" if one["pod"] else ""]
    if one["node"]:
        parts.append(f"on {one['node']}" + (f" in {one['zone']}" if one["zone"] else ""))
    parts.append(f"slice {piece}" if piece else "")
    text = ", ".join(filter(None, parts))
    return f" · {text}" if text else ""


def _client(row: Row) -> str:
    client = row["from"]
    if not client["name"]:
        return "any client on this node"
    if client["netnsCookie"] is None:
        return str(client["name"])
    where = "the node's" if client["inNodeNamespace"] else f"number {client['netnsCookie']}"
    return f"{client['name']} · network namespace: {where}"


def _ranges(ranges: Row) -> Text:
    allowed = ", ".join(ranges["ranges"]) or "none"
    known = f", the client is {ranges['source']}" if ranges["source"] else ""
    admitted = ranges["admitted"]
    verdict = "" if admitted is None else ": let in" if admitted else ": kept out"
    return _text((f"source ranges {allowed}{known}", ""), (verdict, "green" if admitted else "red"))


def _affinity(affinity: Row | None, seconds: int) -> Text:
    if affinity is None:
        return _text((f"session affinity {seconds} s: a new client, chosen at random", ""))
    backend = affinity["backend"] or "a backend that is gone"
    style = "green" if affinity["decides"] else "yellow"
    return _text(
        (f"session affinity {seconds} s: on {backend}, ", ""),
        (f"{affinity['state']}, {affinity['remainingSeconds']} s left", style),
    )


def _text(*parts: tuple[str, str]) -> Text:
    """Names come from the cluster: nothing in them may reach the terminal as it is."""
    return Text.assemble(*((printable(text), style) for text, style in parts))
