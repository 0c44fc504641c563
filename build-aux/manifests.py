"""Renders deploy/kustomize, and writes deploy/install.yaml from the form to prefer.

The part of kustomize that the folders there use, no more: resources, components, and patches in JSON Patch
(RFC 6902). Whatever else a kustomization asks for is an error, so that this and `kubectl kustomize` cannot
come to differ quietly.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy" / "kustomize"
PREFERRED = FOLDER / "overlays" / "least-privilege"
INSTALL = ROOT / "deploy" / "install.yaml"
KNOWN = {"apiVersion", "kind", "resources", "components", "patches"}
HEAD = """\
# kubesock for a cluster: `kubectl apply -f install.yaml`, after writing your API server into the ConfigMap.
# Made by `make manifests` from deploy/kustomize/overlays/least-privilege.
"""

Object = dict[str, Any]


def render(folder: Path) -> list[Object]:
    """The objects of a kustomization, in the order in which it names them."""
    told = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    unknown = told.keys() - KNOWN
    if unknown:
        raise ValueError(f"{folder}/kustomization.yaml: {', '.join(sorted(unknown))}: not rendered here")
    objects = [found for name in told.get("resources", ()) for found in _read(folder / name)]
    for name in told.get("components", ()):
        objects = add_component(objects, folder / name)
    return [_patched(found, told.get("patches", ())) for found in objects]


def add_component(objects: list[Object], folder: Path) -> list[Object]:
    """The objects with those of a component, patched by it."""
    told = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    added = [found for name in told.get("resources", ()) for found in _read(folder / name)]
    return [_patched(found, told.get("patches", ())) for found in [*objects, *added]]


def _read(path: Path) -> list[Object]:
    if path.is_dir():
        return render(path)
    return [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found]


def _patched(found: Object, patches: Any) -> Object:
    made = copy.deepcopy(found)
    for patch in patches:
        target = patch["target"]
        if (target["kind"], target["name"]) == (made["kind"], made["metadata"]["name"]):
            for operation in yaml.safe_load(patch["patch"]):
                _apply(made, operation)
    return made


def _apply(document: Any, operation: Object) -> None:
    *path, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    place = document
    for part in path:
        place = place[int(part)] if isinstance(place, list) else place[part]
    what = operation["op"]
    if what == "add" and isinstance(place, list):
        place.insert(len(place) if last == "-" else int(last), operation["value"])
        return
    key = int(last) if isinstance(place, list) else last
    if what == "add":
        place[key] = operation["value"]
    elif what == "replace":
        place[key]  # RFC 6902: the target must exist
        place[key] = operation["value"]
    elif what == "remove":
        del place[key]
    else:
        raise ValueError(f"{what}: not rendered here")


def document() -> str:
    """The text of install.yaml."""
    return HEAD + yaml.safe_dump_all(render(PREFERRED), sort_keys=False, width=110)


def main() -> None:
    INSTALL.write_text(document(), encoding="utf-8")
    print(INSTALL.relative_to(ROOT), file=sys.stderr)  # noqa: T201  whoever called make is told


if __name__ == "__main__":
    main()
