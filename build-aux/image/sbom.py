"""Lists what an image is made of, as CycloneDX 1.5 JSON: Debian packages and Python distributions.

Run inside the image, by the interpreter that kubesock runs on. The same contents give the same file: there is
no time and no random number in it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import uuid
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

FORMAT = "${binary:Package}\t${Version}\t${Architecture}\t${source:Package}\n"


def debian_packages() -> list[dict[str, Any]]:
    listing = subprocess.run(
        ["dpkg-query", "-W", "-f", FORMAT], check=True, capture_output=True, text=True
    ).stdout
    return [_debian(*line.split("\t")) for line in listing.splitlines()]


def _debian(package: str, version: str, architecture: str, source: str) -> dict[str, Any]:
    name = package.partition(":")[0]
    where = f"arch={architecture}" + (f"&upstream={quote(source)}" if source != name else "")
    purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?{where}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def python_distributions(folder: str) -> list[dict[str, Any]]:
    """Those in a folder of `sys.path`; the distribution's own come as Debian packages."""
    return [_python(found) for found in distributions(path=[folder])]


def _python(found: Distribution) -> dict[str, Any]:
    metadata = found.metadata
    name = metadata["Name"].lower().replace("_", "-")
    purl = f"pkg:pypi/{quote(name)}@{quote(found.version)}"
    component = {"type": "library", "bom-ref": purl, "name": name, "version": found.version, "purl": purl}
    licence = metadata.get("License-Expression")
    return {**component, "licenses": [{"expression": licence}]} if licence else component


def document(components: list[dict[str, Any]]) -> dict[str, Any]:
    ordered = sorted(components, key=lambda component: str(component["bom-ref"]))
    digest = hashlib.sha256(json.dumps(ordered, sort_keys=True).encode()).digest()
    (kubesock,) = [one for one in ordered if one["name"] == "kubesock"]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "kubesock", "version": kubesock["version"]}},
        "components": ordered,
    }


def main(target: Path) -> None:
    own = next(path for path in sys.path if path.startswith(sys.prefix) and path.endswith("site-packages"))
    made = document([*debian_packages(), *python_distributions(own)])
    target.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
