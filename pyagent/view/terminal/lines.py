"""The lines around the table: who and how old on top, the views, the row, the keys at the bottom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from pyagent.view.render import printable
from pyagent.view.terminal.frame import TABS, VIEWS, Frame
from pyagent.view.terminal.keys import KEYS
from pyagent.view.terminal.marks import Marks
from pyagent.view.terminal.view_kinds import Request, rate_text

OLD_AFTER = 3.0
"""Looks that are missed until the age of the data is a warning."""

Part = tuple[str, str]  # text, style


class HeaderFacts(NamedTuple):
    """What the top line tells beside the frame. Times are seconds."""

    node: str
    kernel: str
    now: float
    paused: bool
    interval: float
    wait: float


def header_text(frame: Frame | None, facts: HeaderFacts, marks: Marks, width: int) -> Text:
    """Node, kernel, agent, and how old the data is; the least important is left out where it is narrow."""
    parts: list[tuple[int, Part]] = [
        (0, ("kubesock", "bold")),
        (3, (facts.node, "bold")),
        (4, (f"Linux {facts.kernel}", "")),
    ]
    if frame is not None and frame.columns:
        agent = frame.sample.live.agent
        if agent.alive:
            parts.append((2, (f"agent running, pid {agent.pid}" if agent.pid else "agent running", "green")))
        else:
            parts.append((1, ("no agent: nobody follows changes", "bold yellow")))
        if frame.pulse is not None:
            chosen, refused = frame.pulse
            parts.append((2, (f"{rate_text(chosen)} new/s", "")))
            if refused:
                parts.append((1, (f"{rate_text(refused)} refused/s", "bold red")))
    right = _age(frame, facts)
    while len(parts) > 1 and _length(part for _, part in parts) + len(right[0]) + 2 > width:
        parts.remove(max(parts, key=lambda one: one[0]))
    text = _joined([part for _, part in parts], f" {marks.dot} ")
    text.append(" " * max(1, width - text.cell_len - len(right[0])))
    return text.append(*right)


def _age(frame: Frame | None, facts: HeaderFacts) -> Part:
    pause = "paused, " if facts.paused else ""
    if frame is None or not frame.sample.taken:
        return f"{pause}looking...", ""
    age = max(0.0, facts.now - frame.sample.taken)
    every = f"every {facts.wait:.3g}s"
    if facts.wait > facts.interval * 1.5:
        every += " (a look is costly)"
    if frame.error or age > OLD_AFTER * facts.wait + 1 or facts.paused:
        return f"{pause}data is {age:.0f}s old", "bold yellow"
    return f"{age:.1f}s old, {every}", ""


def tabs_text(frame: Frame | None, request: Request, marks: Marks, width: int) -> Text:
    """The views with their keys, or the way that led here; on the right how many rows there are."""
    count = ""
    if frame is not None and frame.request == request:
        shown = f"{len(frame.rows)} of {frame.total}" if request.pattern else str(frame.total)
        count = f"{shown} row{'' if shown == '1' else 's'}"
        if request.pattern:
            count += f", /{request.pattern}"
    top = "maps" if request.view == "map" else request.view
    for short in (False, True):
        text = Text()
        for number, tab in enumerate(TABS, 1):
            here = tab.key == top
            label = f"{number} {tab.title}" if here or not short else str(number)
            if here and request.subject:
                label += f" {marks.then} {printable(request.subject)}"
            if here and request.view == "map" and request.raw:
                label += " (bytes)"
            text.append(f" {label} ", "bold reverse" if here else "")
        if text.cell_len + len(count) + 2 <= width:
            break
    room = width - cell_len(count) - 2
    if text.cell_len > room:
        text.truncate(max(0, room), overflow="crop")
    text.append(" " * max(1, width - text.cell_len - cell_len(count)))
    text.append(printable(count), "bold" if request.pattern else "dim")
    return text


def detail_text(lines: Iterable[str], width: int, marks: Marks) -> Text:
    """Lines about the row, each cut to the width."""
    text = Text()
    for number, line in enumerate(lines):
        line = printable(line)
        if cell_len(line) > width:
            line = Text(line).plain[: max(0, width - 1)] + marks.ellipsis
        text.append(f"{line}\n", "bold" if number == 0 else "")
    return text


def keys_text(request: Request, mouse: bool, paused: bool, width: int) -> Text:
    """The keys that do something now, as many as there is room for; `?` and `q` always."""
    view = VIEWS[request.view]
    labels: list[Part] = []
    for key in KEYS:
        label = key.label
        if key.action == "raw" and request.view == "map":
            label = "meaning" if request.raw else "bytes"
        elif key.action == "mouse" and not mouse:
            label = "mouse on"
        elif key.action == "pause" and paused:
            label = "go on"
        elif key.action == "enter" and not view.enter:
            label = "fields"
        elif key.action == "explain" and view.explains is None:
            label = ""
        if label:
            labels.append((key.shown, label))
    while sum(len(shown) + len(label) + 3 for shown, label in labels) > width and len(labels) > 2:
        labels.pop(-3)
    text = Text()
    for shown, label in labels:
        text.append(shown, "bold reverse" if label in ("go on", "mouse on") else "bold")
        text.append(f" {label}  ")
    return text


def _joined(parts: list[Part], between: str) -> Text:
    text = Text()
    for number, (content, style) in enumerate(parts):
        text.append(between if number else "")
        text.append(printable(content), style)
    return text


def _length(parts: Iterable[Part]) -> int:
    return sum(cell_len(text) + 3 for text, _ in parts)
