"""YAML text to plain values, safe against hostile input.

libyaml's parser gives the events; values are built from them here, because its composer recurses in C
(100,000 brackets end the process) and expands merge keys without bound. Scalars follow the YAML 1.2 core
schema, which is what JSON means: dates, `yes` and `1:30` stay text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import yaml

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

MAX_DEPTH = 64
MAX_NODES = 5_000_000  # with every alias counted as what it stands for

_INT = re.compile(r"[-+]?[0-9]{1,18}\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_CONSTANTS: dict[str, Value] = dict.fromkeys(("", "~", "null", "Null", "NULL")) | {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class BadYaml(Exception):
    """The text cannot be used from a line (counted from 1) on."""

    def __init__(self, reason: str, line: int) -> None:
        self.reason = reason
        self.line = line
        super().__init__(f"line {line}: {reason}")


class Document(NamedTuple):
    """One document and the line where it starts."""

    value: Value
    line: int


class _Frame:
    """A collection under construction."""

    def __init__(self, value: list[Value] | dict[str, Value], anchor: str | None, size_before: int) -> None:
        self.value = value
        self.anchor = anchor
        self.size_before = size_before
        self.key: str | None = None


def read_documents(data: bytes) -> Iterator[Document]:
    """The documents of a YAML text, one after the other.

    Raises:
        BadYaml: when the text, or what it would expand to, is not acceptable; documents before were yielded.
    """
    builder = _Builder()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadYaml("text is not UTF-8", data.count(b"\n", 0, error.start) + 1) from None
    line = 1
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else line
            if builder.take(event, line):
                yield Document(builder.value, builder.first_line)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(filter(None, (error.problem, error.context)))
        raise BadYaml(reason or "not YAML", mark.line + 1 if mark else line) from None
    except yaml.YAMLError as error:
        raise BadYaml(" ".join(str(error).split())[:200], line) from None


class _Builder:
    def __init__(self) -> None:
        self.value: Value = None
        self.first_line = 0
        self.size = 0  # of all documents: the limit is the file's
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Value, int]] = {}

    def take(self, event: yaml.Event, line: int) -> bool:
        """Use one event; True at the end of a document that holds something."""
        match event:
            case yaml.DocumentStartEvent():
                self.value, self.first_line = None, 0
                self._anchors.clear()
            case yaml.ScalarEvent():
                value = _scalar(event)
                if value == "<<" and event.implicit[0] and self._expects_key():
                    raise BadYaml("merge keys (<<) are not supported; write the fields out", line)
                self._remember(event.anchor, value, 1)
                self._add(value, 1, line)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                if len(self._stack) >= MAX_DEPTH:
                    raise BadYaml(f"nested deeper than {MAX_DEPTH} levels", line)
                self.first_line = self.first_line or line
                empty: list[Value] | dict[str, Value] = (
                    {} if isinstance(event, yaml.MappingStartEvent) else []
                )
                self._stack.append(_Frame(empty, event.anchor, self.size))
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                frame = self._stack.pop()
                self._remember(frame.anchor, frame.value, self.size - frame.size_before + 1)
                self._add(frame.value, 1, line)
            case yaml.AliasEvent():
                anchor = event.anchor or ""
                if anchor not in self._anchors:
                    raise BadYaml(f"alias *{anchor[:40]} stands for nothing, or for itself", line)
                self._add(*self._anchors[anchor], line)
            case yaml.DocumentEndEvent():
                return self.value is not None
        return False

    def _add(self, value: Value, size: int, line: int) -> None:
        self.first_line = self.first_line or line
        self.size += size
        if self.size > MAX_NODES:
            raise BadYaml(f"aliases expand to more than {MAX_NODES} values", line)
        if not self._stack:
            self.value = value
            return
        frame = self._stack[-1]
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.key is None:
            if isinstance(value, (dict, list)):
                raise BadYaml("a key is not text", line)
            frame.key = value if isinstance(value, str) else _key_text(value)
            if frame.key in frame.value:
                raise BadYaml(f"key {frame.key[:80]!r} appears twice", line)
        else:
            frame.value[frame.key] = value
            frame.key = None

    def _expects_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].value, dict) and self._stack[-1].key is None

    def _remember(self, anchor: str | None, value: Value, size: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = (value, size)


def _scalar(event: yaml.ScalarEvent) -> Value:
    text = str(event.value)
    if event.tag in ("tag:yaml.org,2002:str", "!"):
        return text
    if not event.implicit[0]:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    return text


def _key_text(value: bool | int | float | None) -> str:
    """JSON has only text as keys; so do Kubernetes objects."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
    return str(value)
