"""`kubesock migrate`: what changes when kubesock takes kube-proxy's place, and if both serve the same."""

from __future__ import annotations

import http.client
import os
import tempfile
from pathlib import Path
from typing import Any

import click

from pyagent.cli.listing import wants_color
from pyagent.cli.options import bpffs_option, color_option, json_option, verbose_option
from pyagent.model.address import Family
from pyagent.model.failures import KubesockError, UsageError
from pyagent.view import render
from pyagent.view.migration import FINDINGS, STOPS, Cluster, findings
from pyagent.view.tables import Row, Table

DIFFERENT = 4
CONFIG_MAP, CONFIG_KEY = "kube-proxy", "config.conf"
PROXY_MODE_PORT = 10249
_FAMILIES = {"ip": Family.IPV4, "ip6": Family.IPV6}


@click.command()
@click.argument("step", type=click.Choice(("report", "compare")), default="report")
@click.option("--kubeconfig", metavar="FILE", help="An administrator's credentials, for report.")
@click.option("--api-server", metavar="HOST:PORT", help="API server to dial instead of the one they name.")
@click.option(
    "--kube-proxy-config",
    "config_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="kube-proxy's configuration, where it is not in the ConfigMap kube-system/kube-proxy.",
)
@click.option("--all", "everything", is_flag=True, help="compare: also the frontends that are the same.")
@json_option
@bpffs_option
@color_option
@verbose_option
@click.pass_context
def migrate(
    context: click.Context,
    step: str,
    kubeconfig: str | None,
    api_server: str | None,
    config_file: Path | None,
    everything: bool,
    output: str,
    bpffs: Path,
    color: str,
) -> None:
    """What changes when kubesock takes kube-proxy's place, and whether both serve the same.

    report reads the cluster: kube-proxy's settings and mode, and which Services and pods a socket cannot
    serve. compare holds the maps on this node (of `kubesock run --observe`, or of an agent that serves)
    against kube-proxy's rules.

    Neither changes anything; docs/migrate.md has the whole way, and the way back. Exit code 0: nothing stands
    against it, or both serve the same; 4: something does, or they differ.
    """
    if step == "report":
        rows = _report(kubeconfig, api_server, config_file)
        _show(FINDINGS, rows, output, color)
        for row in rows if output == "table" else ():
            click.echo(f"{row['subject']}: {row['remedy']}")
        context.exit(DIFFERENT if any(row["weight"] == STOPS for row in rows) else 0)
    from pyagent.view.rule_comparison import COMPARISON, SAME

    rows = _compare(bpffs)
    different = [row for row in rows if row["state"] != SAME]
    _show(COMPARISON, rows if everything or output != "table" else different, output, color)
    click.echo(f"kubesock: {len(rows)} frontends compared, {len(different)} differ", err=True)
    context.exit(DIFFERENT if different else 0)


def _show(table: Table, rows: list[Row], output: str, color: str) -> None:
    if output == "table":
        text, _ = render.table_text(table.columns, rows, color=wants_color(color))
        click.echo(text, nl=False, color=True)
    else:
        document = render.document(table.kind, rows)
        click.echo(render.json_text(document) if output == "json" else render.yaml_text(document), nl=False)


def _report(kubeconfig: str | None, api_server: str | None, config_file: Path | None) -> list[Row]:
    from pyagent.cluster.once import Reader

    reader = Reader(kubeconfig, api_server)
    try:
        text = config_file.read_text() if config_file else _config_map(reader.list)
        config, notes = _settings(text) if text else (None, [])
        cluster = Cluster(
            services=reader.list("/api/v1/services"),
            pods=reader.list("/api/v1/pods"),
            namespaces=reader.list("/api/v1/namespaces"),
            runtime_classes=reader.list("/apis/node.k8s.io/v1/runtimeclasses"),
            config=config,
        )
    finally:
        reader.close()
    return findings(cluster, str((config or {}).get("mode") or "") or _running_mode(), notes)


def _config_map(read: Any) -> str:
    found = read("/api/v1/namespaces/kube-system/configmaps", fieldSelector=f"metadata.name={CONFIG_MAP}")
    for one in found:
        if (one.get("metadata") or {}).get("name") == CONFIG_MAP:
            return str((one.get("data") or {}).get(CONFIG_KEY) or "")
    return ""


def _settings(text: str) -> tuple[dict[str, Any], list[str]]:
    """kube-proxy's configuration, and what of it has no effect on kubesock."""
    import yaml

    from pyagent.agent.config import parse_run_options

    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise KubesockError(
            f"kube-proxy's configuration cannot be read: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(config, dict):
        raise KubesockError("kube-proxy's configuration holds no object; give --kube-proxy-config FILE")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        try:
            options = {"--config": file.name}
            parsed = parse_run_options(options, environ={}, hostname=os.uname().nodename)
        except UsageError as error:
            return config, [f"kubesock run would not start with it: {str(error).replace(file.name, 'FILE')}"]
        return config, [note.replace(f"--config {file.name}: ", "") for note in parsed.notes]


def _running_mode() -> str:
    """As the kube-proxy of this node says it; empty: none answers."""
    connection = http.client.HTTPConnection("127.0.0.1", PROXY_MODE_PORT, timeout=2)
    try:
        connection.request("GET", "/proxyMode")
        response = connection.getresponse()
        mode = response.read(64).decode("ascii", "replace").strip()
        return mode if response.status == 200 and mode.isalnum() and mode != "kubesock" else ""
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def _compare(bpffs: Path) -> list[Row]:
    from pyagent.kernel.kube_proxy_rules import look, nft_table, saved_rules
    from pyagent.view.kube_proxy_served import Served, by_iptables, by_nft
    from pyagent.view.pins import read_live
    from pyagent.view.rule_comparison import comparison

    live = read_live(bpffs, {"frontends", "sets", "slots", "backends", "names"})
    served: Served = {}
    families: set[Family] = set()
    for word, family in _FAMILIES.items():
        table = nft_table(word)
        if table is not None:
            families.add(family)
            served |= by_nft(table, family)
    for variant, text in saved_rules().items():
        if "KUBE-SERVICES" in text:
            family = Family.IPV6 if variant.save.startswith("ip6") else Family.IPV4
            families.add(family)
            served |= by_iptables(text, family)
    if not families:
        found = look()
        why = "its ipvs mode cannot be compared" if found.ipvs else "it does not run on this node"
        lacking = f"; not installed: {', '.join(found.missing_tools)}" if found.missing_tools else ""
        raise KubesockError(
            f"no rules of kube-proxy's in this network namespace: {why}{lacking};"
            " run this in the node's namespace"
        )
    return comparison(live, served, families)
