"""Names of what is in the maps, for the shell's completion. Where nothing can be read there are none."""

from __future__ import annotations

from pathlib import Path

from pyagent.model.failures import KubesockError
from pyagent.view.names import PortName, service_port_names
from pyagent.view.pins import read_live


def namespaces(bpffs: Path, text: str) -> list[str]:
    """Namespaces that begin with `text`."""
    return sorted({port.namespace for port in _ports(bpffs) if port.namespace.startswith(text)})


def services(bpffs: Path, text: str) -> list[str]:
    """`namespace/name:port/PROTOCOL` that begin with `text`."""
    return sorted({port.service for port in _ports(bpffs) if port.service.startswith(text)})


def _ports(bpffs: Path) -> list[PortName]:
    try:
        live = read_live(bpffs, {"names"})
    except (KubesockError, OSError):
        return []  # an error line would land in the middle of what is being typed
    return [port for port in service_port_names(live.raw.names) if port.service.isprintable()]
