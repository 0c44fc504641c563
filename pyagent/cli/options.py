"""Flags that verbs share, each defined once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

BPFFS = Path("/sys/fs/bpf/kubesock")
STATE_DIR = Path("/var/lib/kubesock")

F = TypeVar("F", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path, readable=False)  # the verb says who may read it, and ends with 3


class Invocation:
    """What holds for the whole command line; click's `obj`."""

    verbose = False


def _be_verbose(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Invocation).verbose = True


verbose_option = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=_be_verbose, help="Tell more of errors."
)

bpffs_option = click.option(
    "--bpffs", type=_PATH, default=BPFFS, show_default=True, metavar="DIR", help="Where the agent's pins are."
)

state_dir_option = click.option(
    "--state-dir",
    type=_PATH,
    default=STATE_DIR,
    show_default=True,
    metavar="DIR",
    help="The agent's own folder.",
)

cgroup_option = click.option(
    "--cgroup", type=_PATH, metavar="PATH", help="Whose processes are translated.  [default: cgroup v2 root]"
)

_OUTPUTS = ("table", "wide", "json", "yaml", "name")

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(_OUTPUTS),
    default="table",
    show_default=True,
    help="How rows are shown.",
)

json_option = click.option(
    "-o",
    "--output",
    type=click.Choice(("table", "json", "yaml")),
    default="table",
    show_default=True,
    help="How it is shown.",
)

color_option = click.option(
    "--color",
    type=click.Choice(("auto", "always", "never")),
    default="auto",
    show_default=True,
    help="Colours; auto: on a terminal, unless NO_COLOR is set.",
)


class Listing(NamedTuple):
    """What the flags of a list verb say."""

    output: str = "table"
    namespace: str = ""
    selector: str = ""
    watch: bool = False
    interval: float = 1.0
    headers: bool = True
    sort_by: str = ""
    color: str = "auto"


def _complete_namespace(context: click.Context, _parameter: click.Parameter, text: str) -> list[str]:
    from pyagent.cli.names_completion import namespaces

    return namespaces(_bpffs_of(context), text)


def complete_service(context: click.Context, _parameter: click.Parameter, text: str) -> list[str]:
    """Names of service ports that begin with `text`, for the shell."""
    from pyagent.cli.names_completion import services

    return services(_bpffs_of(context), text)


def _bpffs_of(context: click.Context) -> Path:
    return Path(context.params.get("bpffs") or BPFFS)


def list_options(namespaced: bool = True) -> Callable[[F], F]:
    """-o --no-headers --sort-by -w -l --color and, for rows of Services, -n -A; gives `listing: Listing`."""

    def decorate(function: F) -> F:
        def verb(
            *,
            output: str,
            selector: str,
            watch: bool,
            interval: float,
            no_headers: bool,
            sort_by: str,
            color: str,
            namespace: str = "",
            all_namespaces: bool = False,
            **others: Any,
        ) -> None:
            listing = Listing(
                output=output,
                namespace="" if all_namespaces else namespace,
                selector=selector,
                watch=watch,
                interval=interval,
                headers=not no_headers,
                sort_by=sort_by,
                color=color,
            )
            function(listing=listing, **others)

        verb.__name__, verb.__doc__ = function.__name__, function.__doc__
        # What decorators below this one have gathered; click reads it from the function that it wraps.
        inherited = getattr(function, "__click_params__", [])
        verb.__click_params__ = list(inherited)  # type: ignore[attr-defined]
        decorated: Any = verb
        for option in reversed(_list_flags(namespaced)):
            decorated = option(decorated)
        result: F = decorated
        return result

    return decorate


def namespace_options(function: F) -> F:
    """-n and -A; gives `namespace` and `all_namespaces`."""
    decorated: Any = function
    for option in reversed(_OF_NAMESPACES):
        decorated = option(decorated)
    result: F = decorated
    return result


_OF_NAMESPACES = (
    click.option(
        "-n",
        "--namespace",
        default="",
        metavar="NAMESPACE",
        shell_complete=_complete_namespace,
        help="Only this namespace.",
    ),
    click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces, which is the default."),
)

selector_option = click.option(
    "-l",
    "--selector",
    default="",
    metavar="FIELD=VALUE,…",
    help="Only rows with these fields, as -o json names them: name=, namespace=, type=, protocol=, …;"
    " != excludes. The maps hold no labels.",
)

headers_option = click.option("--no-headers", is_flag=True, help="Rows alone.")


def _list_flags(namespaced: bool) -> Sequence[Callable[[Any], Any]]:
    return (
        output_option,
        *(_OF_NAMESPACES if namespaced else ()),
        selector_option,
        click.option("-w", "--watch", is_flag=True, help="Go on, and show each row that changes."),
        click.option(
            "--interval",
            type=click.FloatRange(min=0.1),
            default=1.0,
            show_default=True,
            metavar="SECONDS",
            help="With -w: time between two looks.",
        ),
        headers_option,
        click.option(
            "--sort-by", default="", metavar="FIELD", help="A field or a column; -FIELD: greatest first."
        ),
        color_option,
        verbose_option,
    )
