"""Completion where click's own falls short: names with colons in bash, `--flag=value` in zsh and fish.

Click's script takes the words that bash made of the line, and bash makes three of `web:http`: so the line
itself is read here, and what is offered begins where bash's last word begins. The other two replace the whole
word, so what is offered for `--flag=va` must begin with the flag.
"""

from __future__ import annotations

import os
from typing import Any

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

_SCRIPT = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion type value
    response=$(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1")
    COMPREPLY=()
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        case $type in
        dir) compopt -o dirnames ;;
        file) compopt -o default ;;
        plain) COMPREPLY+=("$value") ;;
        esac
    done
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Bash(BashComplete):
    """Completion by COMP_LINE."""

    source_template = _SCRIPT
    _separated = 0

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get("COMP_LINE", "")
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line[-1:].isspace() else ""
        _, _, typed = incomplete.rpartition("=") if incomplete.startswith("-") else ("", "", incomplete)
        if ":" in os.environ.get("COMP_WORDBREAKS", ":"):
            self._separated = typed.rfind(":") + 1
        return words, incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        value = item.value[self._separated :] if item.type == "plain" else item.value
        return f"{item.type},{value}"


class Zsh(ZshComplete):
    """Completion of whole words."""

    _flag = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        words, incomplete = super().get_completion_args()
        self._flag = flag_before(incomplete)
        return words, incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        item.value = self._flag + item.value
        return super().format_completion(item)


class Fish(FishComplete):
    """Completion of whole words."""

    _flag = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        words, incomplete = super().get_completion_args()
        self._flag = flag_before(incomplete)
        return words, incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        item.value = self._flag + item.value
        return super().format_completion(item)


def flag_before(incomplete: str) -> str:
    """`--flag=` of `--flag=val`."""
    flag, equals, _ = incomplete.partition("=")
    return flag + equals if equals and flag.startswith("-") else ""


def register() -> None:
    """Let click use these."""
    for kind in (Bash, Zsh, Fish):
        add_completion_class(kind)
