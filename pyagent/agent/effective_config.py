"""The settings in force, as /configz, `status --config` and --write-config-to show them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pyagent.agent.bind_address import BindAddress
from pyagent.agent.config import SYNC_SECTION, AgentConfig
from pyagent.agent.go_duration import format_duration
from pyagent.agent.options import API_VERSION, KIND, OPTIONS, Option, Value
from pyagent.datapath.layout import Capacities
from pyagent.model.address import format_address
from pyagent.model.failures import UsageError

_NONE: dict[str, object] = {
    "healthz_bind_address": "0",
    "metrics_bind_address": "0",
    "node_port_addresses": ["primary"],
    "external_ip_cidrs": ["0.0.0.0/0", "::/0"],
}
"""What None means, where it does not mean nothing."""


def configz(config: AgentConfig) -> dict[str, object]:
    """The effective KubeProxyConfiguration, with apiVersion and kind."""
    document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": KIND}
    for option in OPTIONS:
        field = option.field
        if option.setting in ("sync_period", "min_sync_period"):
            field = f"{SYNC_SECTION.get(config.proxy_mode, 'nftables')}.{field.rpartition('.')[2]}"
        if not field:
            continue
        *sections, last = field.split(".")
        place = document
        for section in sections:
            place = place.setdefault(section, {})
        value = _plain(option, getattr(config, option.setting))
        place[last] = "" if value == "auto" else value  # kube-proxy knows no such log format
    return document


def described(config: AgentConfig) -> list[dict[str, str]]:
    """Every setting in force: `setting` (its flag), `value`, `origin` and, unless a default, `from`."""
    rows: dict[str, dict[str, str]] = {}
    for option in OPTIONS:
        if option.setting in rows:
            continue
        value = _plain(option, getattr(config, option.setting))
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        if isinstance(value, bool):
            text = text.lower()
        origin = config.origins[option.setting]
        rows[option.setting] = {
            "setting": option.flag.removeprefix("--"),
            "value": text,
            "origin": origin.kind,
            "from": origin.name,
        }
    return list(rows.values())


def write_config(config: AgentConfig) -> None:
    """Write the effective KubeProxyConfiguration to `--write-config-to`.

    Raises:
        UsageError: the file cannot be written.
    """
    if config.write_config_to is None:
        return
    import yaml  # costs a megabyte that a running agent does not need

    text = yaml.safe_dump(configz(config), sort_keys=False)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(config.write_config_to, flags, 0o644), "w") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(
            f"--write-config-to {config.write_config_to}: {error.strerror}; name a file that can be written"
        ) from None


def _plain(option: Option, value: object) -> object:
    """As it would be written in a file."""
    if value is None:
        return _NONE.get(option.setting, "")
    if option.value is Value.DURATION and isinstance(value, float | int):
        return format_duration(value)
    if isinstance(value, BindAddress | Path):
        return str(value)
    if isinstance(value, bytes):
        return format_address(value)
    if isinstance(value, Capacities):
        usual = Capacities()._asdict()
        return [f"{name}={size}" for name, size in value._asdict().items() if usual[name] != size]
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return value
