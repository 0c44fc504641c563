"""`kubesock run`: the agent. Its flags are generated from the table in `agent/options.py`."""

from __future__ import annotations

import os
import socket
from typing import Any

import click

from pyagent.agent.ignored_options import ALL_OPTIONS
from pyagent.agent.options import Kind, Option, Value


def _flag(option: Option) -> click.Option:
    names = [*option.flags, _parameter(option)]
    hidden = option.kind is Kind.IGNORED
    text = option.help + (f"  [default: {option.default}]" if option.default else "")
    if option.value is Value.BOOL:
        # `--flag` alone and `--flag=false` both work, as with kube-proxy.
        return click.Option(
            names, is_flag=False, flag_value="true", metavar="[BOOL]", help=text, hidden=hidden
        )
    kind = click.Choice(option.choices) if option.choices else click.STRING
    return click.Option(names, type=kind, metavar=option.metavar or None, help=text, hidden=hidden)


def _parameter(option: Option) -> str:
    return "flag_" + option.flag.strip("-").replace("-", "_")


def _as_typed(option: Option, text: str) -> str:
    """Go's flags read `-v=2` as `-v 2`, click reads the value `=2`."""
    return text.removeprefix("=") if option.short else text


def _serve(**values: Any) -> None:
    from pyagent.agent.config import parse_run_options

    given = {
        option.flag: _as_typed(option, str(values[name]))
        for option in ALL_OPTIONS
        if values.get(name := _parameter(option)) is not None
    }
    config = parse_run_options(given, environ=os.environ, hostname=socket.gethostname())
    if config.write_config_to is not None:
        from pyagent.agent.effective_config import write_config

        write_config(config)
        return
    if config.cleanup:
        from pyagent.kernel.removal import cleanup

        cleanup(config.bpffs)
        return

    if config.init_only:
        from pyagent.kernel.mounts import ensure_bpffs

        ensure_bpffs(config.bpffs)  # all that needs more than the agent itself
        return

    from pyagent.agent.run import run as serve

    serve(config)


run = click.Command(
    "run",
    callback=_serve,
    params=[_flag(option) for option in ALL_OPTIONS],
    help="The agent: keeps the kernel's maps equal to Services and EndpointSlices.\n\n"
    "Flags of kube-proxy are accepted under their own names; those that mean nothing here are ignored.",
)
