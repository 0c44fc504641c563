"""Small pictures made of characters: history lines and bars. Plain ASCII where the locale is not UTF-8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_LEFT = (0x00, 0x40, 0x44, 0x46, 0x47)
_RIGHT = (0x00, 0x80, 0xA0, 0xB0, 0xB8)
_BRAILLE = 0x2800
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = " .:-=+*#"


class Marks(NamedTuple):
    """What may be drawn with. `utf8`: whether the locale has more than ASCII."""

    utf8: bool

    @property
    def ellipsis(self) -> str:
        return "…" if self.utf8 else "~"

    @property
    def arrow(self) -> str:
        return "→" if self.utf8 else "->"

    @property
    def then(self) -> str:
        return "›" if self.utf8 else ">"

    @property
    def dot(self) -> str:
        return "·" if self.utf8 else "-"

    @property
    def down(self) -> str:
        return "▾" if self.utf8 else "v"

    @property
    def up(self) -> str:
        return "▴" if self.utf8 else "^"

    def history(self, values: Sequence[float], width: int) -> str:
        """The last values as a line of this width, scaled to the greatest; empty if all are 0.

        Braille holds two values in a character, with heights from 0 to 4; ASCII one.
        """
        shown = list(values[-(2 * width if self.utf8 else width) :])
        top = max(shown, default=0.0)
        if top <= 0:
            return ""
        if not self.utf8:
            return "".join(_HEIGHTS[_height(v, top, len(_HEIGHTS) - 1)] for v in shown).rjust(width)
        if len(shown) % 2:
            shown.insert(0, 0.0)
        heights = [_height(value, top, 4) for value in shown]
        pairs = zip(heights[::2], heights[1::2], strict=True)
        return "".join(chr(_BRAILLE | _LEFT[a] | _RIGHT[b]) for a, b in pairs).rjust(width)

    def bar(self, percent: float, width: int) -> str:
        """A bar of this width, filled so far."""
        part = min(max(percent, 0.0), 100.0) / 100
        if not self.utf8:
            full = round(part * width)
            return "#" * full + "." * (width - full)
        eighths = round(part * width * 8)
        if percent > 0:
            eighths = max(eighths, 1)
        full, rest = divmod(eighths, 8)
        return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width, "·")


def _height(value: float, top: float, levels: int) -> int:
    """Something that happened is never drawn as nothing."""
    return 0 if value <= 0 else max(1, round(value / top * levels))
