"""Names in objects, checked before they become keys, map entries and lines on a screen."""

from __future__ import annotations

import re
from functools import lru_cache

from pyagent.model.failures import InvalidField

_DNS_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
MAX_LABEL = 63
MAX_NAME = 253
CACHED_NAMES = 16_384


def is_name(text: str, limit: int = MAX_NAME) -> bool:
    """Whether text can be an object's name: letters, digits, `-`, `.` and `_`, at most `limit` long."""
    return len(text) <= limit and _DNS_NAME.fullmatch(text) is not None


@lru_cache(CACHED_NAMES)
def is_label(text: str) -> bool:
    """Whether text can be the name of a namespace or port, at most 63 long (many objects share few)."""
    return is_name(text, MAX_LABEL)


@lru_cache(CACHED_NAMES)
def node_name(text: str | None) -> str:
    """A node's name, the same string object every time (a hundred thousand endpoints name few nodes).

    Raises:
        InvalidField: it cannot be the name of a Node.
    """
    if text and not is_name(text):
        raise InvalidField(f"not a node name (want letters, digits, '-', '.', at most {MAX_NAME})", text)
    return text or ""


@lru_cache(CACHED_NAMES)
def zone_name(text: str | None) -> str:
    """A zone, which is the value of a label.

    Raises:
        InvalidField: it cannot be the value of a label.
    """
    if text and not is_name(text, MAX_LABEL):
        raise InvalidField(f"not a label value (want letters, digits, '-', '.', at most {MAX_LABEL})", text)
    return text or ""
