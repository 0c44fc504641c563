"""What an operator should see beside the object it is about; told to the cluster as an Event."""

from __future__ import annotations

from typing import Literal

import msgspec


class Notice(msgspec.Struct, frozen=True):
    """Two equal notices are one thing that happened twice.

    Attributes:
        kind, namespace, name: what it is about; a Node without a name is this node.
        reason: one word in camel case, the same for all notices of a sort.
        action: what was done or tried, one word in camel case.
        text: cause and remedy. Without numbers that change, lest each counts as another notice.
        everywhere: every node finds the same, so that one Event for all of them is enough.
    """

    kind: Literal["Node", "Service"]
    reason: str
    action: str
    text: str
    namespace: str = ""
    name: str = ""
    warning: bool = True
    everywhere: bool = False
