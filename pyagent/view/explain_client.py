"""Who `--from` means, found on this machine: a pod, a network namespace, a process, the node itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pyagent.datapath.decoded import RawMaps
from pyagent.kernel.mounts import cgroup2_root
from pyagent.kernel.network_namespaces import RUN_NETNS, inside, named, of_processes
from pyagent.kernel.node_addresses import node_addresses
from pyagent.kernel.sockets import netns_cookie
from pyagent.model.address import is_loopback, parse_address
from pyagent.model.failures import InvalidField, KubesockError, UsageError, sanitized
from pyagent.view.explain_maps import ClientMaps
from pyagent.view.explain_question import ANYBODY, Client, node_cookie

HOST = "host"
COOKIE = "cookie:"
PROC = Path("/proc")
WANTED = (
    "want host, [NAMESPACE/]POD, an address (of a pod, or outside), a name in /run/netns, a path to a network"
    " namespace, a process id or cookie:NUMBER"
)
MAX_ENVIRONMENT = 1 << 20
NAMESPACE_FILE = "run/secrets/kubernetes.io/serviceaccount/namespace"


def find_client(text: str, raw: RawMaps, clients: ClientMaps) -> Client:
    """The client of a `--from`; "" is nobody in particular.

    Raises:
        UsageError: there is none, or there are several.
        KernelRefused: its network namespace cannot be entered.
    """
    if not text:
        return ANYBODY
    if text == HOST:
        cookie = node_cookie(raw)
        if not cookie:
            raise UsageError(
                "--from host: the maps do not tell the node's network namespace (no agent ran on Linux 5.14)"
            )
        return Client(HOST, cookie)
    if text.startswith(COOKIE) and text.removeprefix(COOKIE).isdecimal():
        return Client(text, int(text.removeprefix(COOKIE)))
    if text.isdecimal():
        return _of_process(text)
    if text.startswith("/"):
        return Client(text, _cookie_of(Path(text), text))
    address = _address(text)
    if address is not None:
        cookies = _by_address(address, text, clients)
        if not cookies:
            return Client(f"outside, {text}", outside=address)
        return Client(text, _only(cookies, text))
    if "/" not in text and text not in (".", "..") and (RUN_NETNS / text).exists():
        return Client(text, _cookie_of(RUN_NETNS / text, text))
    return _of_pod(text)


def _address(text: str) -> bytes | None:
    try:
        return parse_address(text)
    except InvalidField:
        return None


def _cookie_of(path: Path, text: str) -> int:
    try:
        cookie = inside(path, netns_cookie)
    except OSError as error:
        raise UsageError(f"--from {sanitized(text)}: {path}: {error.strerror}; {WANTED}") from None
    if not cookie:
        raise UsageError(
            f"--from {sanitized(text)}: this kernel has no network namespace cookies (Linux 5.14)"
        )
    return cookie


def _of_process(pid: str) -> Client:
    folder = PROC / pid
    return Client(f"process {pid}", _cookie_of(folder / "ns" / "net", pid), _cgroup_ids(folder))


def _cgroup_ids(process: Path) -> tuple[int, ...]:
    """Ids of the cgroups that a process is in, from the root down (cgroup_id() is the folder's inode)."""
    lines = (process / "cgroup").read_text().splitlines()
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if path is None:
        return ()
    folder = cgroup2_root()
    found = [folder.stat().st_ino]
    for part in filter(None, path.split("/")):
        folder /= part
        try:
            found.append(folder.stat().st_ino)
        except OSError:
            return ()  # seen through another cgroup namespace
    return tuple(found)


def _by_address(address: bytes, text: str, clients: ClientMaps) -> set[int]:
    """The namespaces with an address: as the agent noted it, else by a look into each."""
    noted = [cookie for cookie, known in clients.addresses.items() if address in known.values()]
    if len(noted) == 1:
        return set(noted)
    if is_loopback(address):
        raise UsageError(f"--from {sanitized(text)}: every namespace has a loopback address; {WANTED}")
    found = set()
    for path in _distinct([*named(), *of_processes()]):
        try:
            if any(one.address == address for one in inside(path, node_addresses)):
                found.add(inside(path, netns_cookie))
        except (OSError, KubesockError):
            continue  # it ended meanwhile
    return found


def _distinct(paths: Iterable[Path]) -> list[Path]:
    found: dict[int, Path] = {}
    for path in paths:
        try:
            found.setdefault(path.stat().st_ino, path)
        except OSError:
            continue  # it ended meanwhile
    return list(found.values())


def _of_pod(text: str) -> Client:
    """A pod by its name, which container runtimes give its processes as HOSTNAME."""
    namespace, _, name = text.rpartition("/")
    wanted = f"HOSTNAME={name}".encode()
    processes = [p.parent.parent for p in of_processes() if _has_variable(p.parent.parent, wanted)]
    if namespace:
        processes = [process for process in processes if _namespace_of(process) in ("", namespace)]
    namespaces = {path.parent.parent: path for path in _distinct(p / "ns" / "net" for p in processes)}
    cookies = {_cookie_of(path, text): process for process, path in namespaces.items()}
    cookie = _only(cookies, text)
    return Client(f"pod {text}", cookie, _cgroup_ids(cookies[cookie]))


def _has_variable(process: Path, wanted: bytes) -> bool:
    try:
        with (process / "environ").open("rb") as file:
            return wanted in file.read(MAX_ENVIRONMENT).split(b"\0")
    except OSError:
        return False  # it ended meanwhile, or is somebody else's


def _namespace_of(process: Path) -> str:
    """The Kubernetes namespace that a pod's processes see; "" where they see none."""
    try:
        with (process / "root" / NAMESPACE_FILE).open("rb") as file:
            return file.read(256).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _only(found: Iterable[int], text: str) -> int:
    cookies = sorted(found)
    if not cookies:
        raise UsageError(f"--from {sanitized(text)}: not found on this node; {WANTED}")
    if len(cookies) > 1:
        which = ", ".join(f"{COOKIE}{cookie}" for cookie in cookies[:8])
        raise UsageError(
            f"--from {sanitized(text)}: {len(cookies)} network namespaces fit; give one of {which}"
        )
    return cookies[0]
