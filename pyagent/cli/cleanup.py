"""`kubesock cleanup`: detach the hooks and remove every pin. The only thing that ends the translation."""

from __future__ import annotations

from pathlib import Path

import click

from pyagent.cli.options import bpffs_option, state_dir_option, verbose_option


@click.command()
@bpffs_option
@state_dir_option
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@verbose_option
def cleanup(bpffs: Path, state_dir: Path, dry_run: bool) -> None:
    """Detach the hooks and remove every pin and the agent's state.

    New connections reach no Service from then on; those that stand go on. Refuses while an agent runs.
    """
    from pyagent.agent.state_files import is_in_use, remove_state, state_files
    from pyagent.kernel.datapath import cleanup as remove_pins
    from pyagent.kernel.datapath import pins

    if dry_run:
        for path in [*pins(bpffs), *([] if is_in_use(state_dir) else state_files(state_dir))]:
            click.echo(f"would remove {path}")
        return
    removed = [str(path) for path in remove_pins(bpffs)]
    if is_in_use(state_dir):
        click.echo(f"kubesock: {state_dir} stays: another agent, with another --bpffs, uses it", err=True)
    else:
        removed += remove_state(state_dir)
    for line in removed:
        click.echo(f"removed {line}")
    if not removed:
        click.echo(f"nothing to remove below {bpffs}")
