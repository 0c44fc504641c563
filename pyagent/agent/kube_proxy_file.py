"""A KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1) from YAML or JSON.

Read strictly as to types, leniently as to fields that nobody knows: kube-proxy starts with those too, and
a node without its proxy is worse than a misspelt field.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pyagent.agent.go_duration import parse_duration
from pyagent.agent.ignored_options import FILE_FIELDS
from pyagent.agent.options import API_VERSION, KIND, Value
from pyagent.model.failures import InvalidField, UsageError, sanitized

MAX_BYTES = 1 << 20

# Pointers in kube-proxy's type: null means "not set", false and 0 are values.
_COUNT_WHEN_ZERO = ("iptables.localhostNodePorts", "oomScoreAdj")
_SECTIONS = {name.rpartition(".")[0] for name in FILE_FIELDS if "." in name}


class KubeProxyFile(NamedTuple):
    """The known fields that the file sets, by path; durations in seconds. Zero values count as not set."""

    path: str
    fields: dict[str, Any]
    unknown: tuple[str, ...]
    repeated: tuple[str, ...]


def read_kube_proxy_file(path: str) -> KubeProxyFile:
    """Read and check `--config`.

    Raises:
        UsageError: it cannot be read, is of another kind, or a field has the wrong type.
    """
    document, repeated = _load(path)
    if not isinstance(document, dict):
        raise UsageError(f"--config {path}: holds no object; want a {KIND}")
    for field, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(field) != wanted:
            found = _shown(document.get(field, ""))
            raise UsageError(f"--config {path}: {field} is {found}; want {API_VERSION} {KIND}")
    fields: dict[str, Any] = {}
    unknown: list[str] = []
    _take(path, "", document, fields, unknown)
    return KubeProxyFile(path, fields, tuple(unknown), repeated)


def _load(path: str) -> tuple[object, tuple[str, ...]]:
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}; name a readable file") from None
    if len(text) > MAX_BYTES:
        raise UsageError(f"--config {path}: larger than {MAX_BYTES >> 20} MiB; name a {KIND}")
    try:
        loader = _Loader(text)
        return loader.get_single_data(), tuple(dict.fromkeys(loader.repeated))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        cause = getattr(error, "problem", None) or str(error) or type(error).__name__
        cause = sanitized(" ".join(cause.split()), 160)
        raise UsageError(f"--config {path}{where}: not one YAML or JSON document: {cause}") from None


class _Loader(yaml.SafeLoader):
    """Notes the keys that a mapping has twice; the last one counts, as in kube-proxy's lenient reading."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.repeated: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        self.repeated += [str(key) for key, count in Counter(keys).items() if count > 1]
        return super().construct_mapping(node, deep)


def _take(
    path: str, prefix: str, section: dict[Any, Any], fields: dict[str, Any], unknown: list[str]
) -> None:
    for key, value in section.items():
        name = f"{prefix}{key}" if isinstance(key, str) else f"{prefix}?"
        if name in FILE_FIELDS:
            read = _typed(path, name, value)
            if read is not None and (name in _COUNT_WHEN_ZERO or not _is_zero(read, set())):
                fields[name] = read
        elif name in _SECTIONS:
            if value is not None and not isinstance(value, dict):
                raise _wrong(path, name, Value.MAPPING, value)
            _take(path, f"{name}.", value or {}, fields, unknown)
        else:
            unknown.append(sanitized(name)[1:-1])


def _is_zero(value: object, seen: set[int]) -> bool:
    """Whether it says nothing: a dump of the defaults is full of such values."""
    if id(value) in seen:
        return True  # an alias, which may repeat itself without end
    if isinstance(value, dict | list):
        seen.add(id(value))
        items = value.values() if isinstance(value, dict) else value
        return all(item in ("0", "0s") or _is_zero(item, seen) for item in items)
    return value in (None, "", 0)


def _typed(path: str, name: str, value: Any) -> Any:
    """The value if its type is right; None for null."""
    wanted = FILE_FIELDS[name]
    if value is None or wanted is Value.ANY:
        return value
    if wanted is Value.DURATION and isinstance(value, str):
        try:
            return parse_duration(value)
        except InvalidField as error:
            raise UsageError(f"--config {path}: {name}: {error}") from None
    right = {
        Value.TEXT: isinstance(value, str),
        Value.BOOL: isinstance(value, bool),
        Value.INT: isinstance(value, int) and not isinstance(value, bool),
        Value.FLOAT: isinstance(value, int | float) and not isinstance(value, bool),
        Value.LIST: isinstance(value, list) and all(isinstance(item, str) for item in value),
        Value.MAPPING: isinstance(value, dict),
        Value.SWITCHES: isinstance(value, dict) and all(isinstance(item, bool) for item in value.values()),
    }
    if not right.get(wanted, False):
        raise _wrong(path, name, wanted, value)
    return value


def _wrong(path: str, name: str, wanted: Value, value: object) -> UsageError:
    return UsageError(f"--config {path}: {name}: want {wanted.value}, got {_shown(value)}")


def _shown(value: object) -> str:
    # Aliases can make a small file's mapping print without end.
    return sanitized(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"
