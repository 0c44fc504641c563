"""A stream of bytes into lines, each byte copied at most twice however the pieces fall."""

from __future__ import annotations

from collections.abc import Iterator

from pyagent.cluster.decode import MAX_OBJECT_BYTES, NotReadable


class LineSplitter:
    """Feed pieces, get whole lines. Holds one incomplete line of bounded size."""

    def __init__(self, longest: int = MAX_OBJECT_BYTES) -> None:
        self._parts: list[bytes] = []
        self._held = 0
        self._longest = longest

    @property
    def incomplete(self) -> bool:
        """Whether the stream stands in the middle of a line."""
        return self._held > 0

    def feed(self, piece: bytes) -> Iterator[bytes | memoryview]:
        """The lines completed by this piece, without their line feeds; empty ones are left out.

        Raises:
            NotReadable: a line is longer than allowed.
        """
        end = piece.find(b"\n")
        if end < 0:
            self._hold(piece)
            return
        start = 0
        if self._parts:
            self._hold(piece[:end])
            line = b"".join(self._parts)
            self._parts.clear()
            self._held = 0
            if line:
                yield line
            start = end + 1
            end = piece.find(b"\n", start)
        view = memoryview(piece)
        while end >= 0:
            if end > start:
                yield view[start:end]
            start = end + 1
            end = piece.find(b"\n", start)
        if start < len(piece):
            self._hold(piece[start:])

    def _hold(self, part: bytes) -> None:
        self._held += len(part)
        if self._held > self._longest:
            raise NotReadable(f"a line of the watch is longer than {self._longest >> 20} MiB")
        if part:
            self._parts.append(part)
