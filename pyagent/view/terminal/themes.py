"""Themes that `t` goes through."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="kubesock",
    primary="#5ec4ff",
    secondary="#9d8cff",
    accent="#ffcb6b",
    warning="#ffcb6b",
    error="#ff6b7d",
    success="#7bd88f",
    foreground="#d7dde8",
    background="#10141c",
    surface="#151b26",
    panel="#1d2533",
    dark=True,
    variables={"block-cursor-background": "#274560", "block-cursor-foreground": "#ffffff"},
)
LIGHT = Theme(
    name="kubesock-light",
    primary="#0b63a5",
    secondary="#6244bb",
    accent="#8a5a00",
    warning="#8a5a00",
    error="#b3203a",
    success="#1d7a36",
    foreground="#1c2330",
    background="#fbfcfe",
    surface="#f1f4f9",
    panel="#e3e9f2",
    dark=False,
    variables={"block-cursor-background": "#cbe2f7", "block-cursor-foreground": "#0b1a2b"},
)
OWN = (DARK, LIGHT)
CYCLE = ("kubesock", "kubesock-light", "nord", "gruvbox", "solarized-light", "ansi-dark", "ansi-light")
"""The last two use the terminal's own colours."""
