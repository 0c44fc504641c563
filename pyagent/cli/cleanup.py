"""`kubesock cleanup`: detach the hooks and remove every pin, or what kube-proxy left behind."""

from __future__ import annotations

from pathlib import Path

import click

from pyagent.cli.options import bpffs_option, state_dir_option, verbose_option
from pyagent.model.failures import KubesockError


@click.command()
@bpffs_option
@state_dir_option
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option(
    "--kube-proxy",
    is_flag=True,
    help="Remove kube-proxy's nftables tables and iptables chains instead, and nothing else.",
)
@click.option(
    "--force",
    is_flag=True,
    help="With --kube-proxy: also while kube-proxy runs, or kubesock does not serve.",
)
@verbose_option
def cleanup(bpffs: Path, state_dir: Path, dry_run: bool, kube_proxy: bool, force: bool) -> None:
    """Detach the hooks and remove every pin and the agent's state.

    New connections reach no Service from then on; those that stand go on. Refuses while an agent runs.

    With --kube-proxy nothing of kubesock is touched: what a stopped kube-proxy left in this network namespace
    is removed, except what rules of others need.
    """
    if kube_proxy:
        _remove_kube_proxys(bpffs, dry_run, force)
        return
    if force:
        raise click.UsageError("--force: only with --kube-proxy")
    _remove_ours(bpffs, state_dir, dry_run)


def _remove_ours(bpffs: Path, state_dir: Path, dry_run: bool) -> None:
    from pyagent.agent.state_files import is_in_use, remove_state, shown, state_files
    from pyagent.kernel.removal import cleanup as remove_pins
    from pyagent.kernel.removal import pins

    if dry_run:
        for path in [*pins(bpffs), *([] if is_in_use(state_dir) else state_files(state_dir))]:
            click.echo(f"would remove {shown(path)}")
        return
    removed = [str(path) for path in remove_pins(bpffs)]
    failed: list[str] = []
    if is_in_use(state_dir):
        click.echo(f"kubesock: {state_dir} stays: another agent, with another --bpffs, uses it", err=True)
    else:
        state = remove_state(state_dir)
        removed += state.removed
        for line in state.kept:
            click.echo(f"kubesock: {line}", err=True)
        failed = state.failed
    for line in removed:
        click.echo(f"removed {line}")
    if failed:
        raise KubesockError("; ".join(failed))
    if not removed:
        click.echo(f"nothing to remove below {bpffs}")


def _remove_kube_proxys(bpffs: Path, dry_run: bool, force: bool) -> None:
    from pyagent.kernel.kube_proxy_rules import look, remove

    found = look()
    for tool in found.missing_tools:
        click.echo(f"kubesock: {tool} is not installed: its rules, if any, were not looked at", err=True)
    if found.blind:
        raise KubesockError("nothing was looked at: run this on the node itself, by its own nft or iptables")
    if found.ipvs:
        click.echo(
            "kubesock: kube-ipvs0: virtual servers of ipvs mode stay; `kube-proxy --cleanup` removes them",
            err=True,
        )
    for variant, one in found.iptables:
        for chain in one.kept:
            click.echo(
                f"kubesock: {variant.save.removesuffix('-save')} {chain} stays: rules of others lead to it",
                err=True,
            )
    if dry_run:
        for family in found.nft:
            click.echo(f"would remove nftables table {family} kube-proxy")
        for variant, one in found.iptables:
            for line in one.removed:
                click.echo(f"would remove {variant.save.removesuffix('-save')} {line}")
    elif found:
        if not force:
            _check_that_somebody_serves(bpffs)
        for line in remove(found):
            click.echo(f"removed {line}")
    if not found:
        click.echo("nothing of kube-proxy's in this network namespace")


def _check_that_somebody_serves(bpffs: Path) -> None:
    """Without these rules a node without hooks serves nobody; and a running kube-proxy makes them anew."""
    from pyagent.kernel.links import pinned_states
    from pyagent.kernel.processes import named
    from pyagent.view.node_status import LINKS

    running = named("kube-proxy")
    if running:
        raise KubesockError(
            f"kube-proxy runs, process {running[0]}, and would make its rules anew; stop it first, or --force"
        )
    if not any(state.attached for state in pinned_states(bpffs / LINKS)):
        raise KubesockError(
            f"no hooks of kubesock are attached ({bpffs}): nobody would serve Services then;"
            " start `kubesock run`, give its --bpffs, or --force"
        )
