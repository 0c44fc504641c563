"""Our exceptions. Each text names the object, the cause and the remedy; the CLI prints it as one line."""

from __future__ import annotations


class KubesockError(Exception):
    """Base of every failure that we raise on purpose."""

    exit_code = 1


class InvalidField(KubesockError, ValueError):
    """A value inside an object cannot be used; the object's other fields can."""

    def __init__(self, reason: str, value: object) -> None:
        self.reason = reason
        self.value = sanitized(value)
        super().__init__(f"{reason}: {self.value}")


class UsageError(KubesockError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class PinsMissing(KubesockError):
    """There is nothing pinned to read: no agent ran on this bpffs."""

    exit_code = 3


class NoPermission(KubesockError):
    """The kernel or the file system refused us."""

    exit_code = 3


class LayoutMismatch(KubesockError):
    """Pinned maps have another layout than this program reads."""

    exit_code = 3


class KernelRefused(KubesockError):
    """A system call failed; the text names the feature, option or permission that is missing."""


class MapFull(KernelRefused):
    """A map has no room for one more entry."""

    def __init__(self, map_name: str, capacity: int) -> None:
        self.map_name = map_name
        self.capacity = capacity
        super().__init__(f"map {map_name} is full ({capacity} entries)")


class CompilerMissing(KubesockError):
    """BCC's Python binding is not installed."""


class ClusterUnreachable(KubesockError):
    """The API server cannot be reached or refuses us."""


class AgentRunning(KubesockError):
    """Another agent holds this bpffs directory."""


def sanitized(value: object, limit: int = 80) -> str:
    """`repr`-like text of untrusted input: printable, one line, bounded."""
    text = value if isinstance(value, str) else repr(value)
    return repr(text[:limit] + "…" if len(text) > limit else text)
