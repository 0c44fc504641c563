"""A real kube-apiserver for the agents to follow, in place of the manifests directory.

For whoever has the binaries of a Kubernetes release: `pytest tests/conformance --kube-binaries DIR`.
Agents log in as the service account of `deploy/kustomize/base/rbac.yaml`: its rights are tested too.
"""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import trustme
import yaml

from pyagent.demo import namespaces
from pyagent.demo.calls import call
from pyagent.demo.children import wait_until
from pyagent.demo.links import Attachment
from pyagent.demo.sandbox import Sandbox
from tests.conformance.ground.objects import NAMESPACE, Object

RBAC = Path(__file__).parents[3] / "deploy/kustomize/base/rbac.yaml"
ADDRESS, PORT = "172.30.0.2", 6443
ADMIN, AGENT = "admin", "agent"
START_SECONDS = 120.0
APPLY_SECONDS = 60.0
_TOKENS = f"""{ADMIN},admin,1,"system:masters"
{AGENT},system:serviceaccount:kube-system:kubesock,2,"system:serviceaccounts,system:authenticated"
"""


class _Kind(NamedTuple):
    api: str
    plural: str
    namespaced: bool


_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_KINDS = {
    "Namespace": _Kind("/api/v1", "namespaces", False),
    "Service": _Kind("/api/v1", "services", True),
    "Node": _Kind("/api/v1", "nodes", False),
    "ServiceAccount": _Kind("/api/v1", "serviceaccounts", True),
    "EndpointSlice": _Kind("/apis/discovery.k8s.io/v1", "endpointslices", True),
    "ServiceCIDR": _Kind("/apis/networking.k8s.io/v1", "servicecidrs", False),
    "ClusterRole": _Kind(_RBAC, "clusterroles", False),
    "ClusterRoleBinding": _Kind(_RBAC, "clusterrolebindings", False),
}
_STATUS_BY_ITSELF = frozenset({"Service", "Node"})
_ITS_OWN = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes"
"""Made by the server from its flags."""


class RealServer:
    """etcd and kube-apiserver in a network namespace of their own, on the nodes' link."""

    def __init__(
        self,
        sandbox: Sandbox,
        folder: Path,
        switch: Path,
        binaries: Path,
        service_ranges: Iterable[str],
        routes: tuple[str, ...],
    ) -> None:
        """
        Args:
            binaries: folder of `kube-apiserver`; `etcd` is there or on PATH.
            routes: pod networks, to answer clients from.
        """
        self._netns = sandbox.new_namespace("api")
        self._written: dict[str, set[str]] = {}
        namespaces.attach_pods(switch, [Attachment("api", self._netns, (f"{ADDRESS}/24",), routes)])
        data = folder / "api"
        data.mkdir()
        (data / "tokens").write_text(_TOKENS)
        trustme.CA().private_key_pem.write_to_path(str(data / "key"))  # signs service account tokens
        spawn = partial(sandbox.spawn, netns=self._netns)
        spawn(_etcd(binaries, data), log="etcd.log", label="etcd")
        spawn(_kube_apiserver(binaries, data, service_ranges), log="apiserver.log", label="kube-apiserver")
        if not wait_until(lambda: self._do(_is_ready), START_SECONDS, interval=0.2):
            raise AssertionError((sandbox.folder / "apiserver.log").read_text()[-4000:])
        spaces = [_namespace(NAMESPACE), _namespace(f"{NAMESPACE}-revision")]
        self.write("before", [*spaces, *yaml.safe_load_all(RBAC.read_text())])
        self._kubeconfig = data / "kubeconfig"
        self._kubeconfig.write_text(json.dumps(_kubeconfig(data / "apiserver.crt")))

    @property
    def source(self) -> tuple[str, str]:
        """What `kubesock run` is given."""
        return "--kubeconfig", str(self._kubeconfig)

    def write(self, name: str, objects: Iterable[Object]) -> None:
        """Let the server have these and nothing else of what was written under this name before.

        Raises:
            AssertionError: the server refuses one.
        """
        wanted = {_path(one): _defaulted(one) for one in objects}
        wanted.pop(_ITS_OWN, None)
        gone = self._written.get(name, set()) - wanted.keys()
        self._do(partial(_replace, wanted, gone))
        self._written[name] = set(wanted)

    def _do(self, work: Callable[[], Any]) -> Any:
        return call(work, netns=self._netns, timeout=APPLY_SECONDS)


def _etcd(binaries: Path, data: Path) -> list[str]:
    beside = binaries / "etcd"
    found = str(beside) if beside.exists() else shutil.which("etcd")
    assert found, f"no etcd in {binaries} or on PATH"
    url = "http://127.0.0.1:2379"
    urls = f"--listen-client-urls={url}", f"--advertise-client-urls={url}"
    return [found, f"--data-dir={data}/etcd", *urls, "--unsafe-no-fsync"]


def _kube_apiserver(binaries: Path, data: Path, service_ranges: Iterable[str]) -> list[str]:
    return [
        str(binaries / "kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:2379",
        f"--secure-port={PORT}",
        f"--advertise-address={ADDRESS}",
        f"--cert-dir={data}",
        f"--service-cluster-ip-range={','.join(service_ranges)}",
        f"--token-auth-file={data}/tokens",
        "--authorization-mode=RBAC",
        "--anonymous-auth=false",
        f"--service-account-key-file={data}/key",
        f"--service-account-signing-key-file={data}/key",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--disable-admission-plugins=ServiceAccount",
    ]


def _kubeconfig(authority: Path) -> Object:
    cluster = {"server": f"https://{ADDRESS}:{PORT}", "certificate-authority": str(authority)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "real",
        "clusters": [{"name": "real", "cluster": cluster}],
        "users": [{"name": "agent", "user": {"token": AGENT}}],
        "contexts": [{"name": "real", "context": {"cluster": "real", "user": "agent"}}],
    }


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _defaulted(made: Object) -> Object:
    """What a scenario leaves away because a file may, and the server wants."""
    if made["kind"] == "Service" and len(made["spec"].get("clusterIPs", ())) > 1:
        return {**made, "spec": {"ipFamilyPolicy": "RequireDualStack", **made["spec"]}}
    return made


def _path(made: Object) -> str:
    return f"{_collection(made)}/{made['metadata']['name']}"


def _collection(made: Object) -> str:
    kind = _KINDS[made["kind"]]
    space = f"/namespaces/{made['metadata'].get('namespace', 'default')}" if kind.namespaced else ""
    return f"{kind.api}{space}/{kind.plural}"


# --- in the server's namespace


def _is_ready() -> bool:
    try:
        return _request("GET", "/readyz")[0] == 200
    except OSError:
        return False


def _replace(wanted: dict[str, Object], gone: set[str]) -> None:
    for path in sorted(gone):  # first, so that addresses and nodePorts are free again
        _succeed("DELETE", path)
    for path, made in wanted.items():
        _put(path, made)


def _put(path: str, made: Object) -> None:
    """Create or update, the status too; what cannot be changed is made anew."""
    status = made.get("status")
    plain = {field: value for field, value in made.items() if field != "status"}
    code, now = _request("GET", path)
    if code == 200:
        version = {"resourceVersion": now["metadata"]["resourceVersion"]}
        code, now = _request("PUT", path, {**plain, "metadata": {**plain["metadata"], **version}})
        if code != 200:
            _succeed("DELETE", path)
    if code != 200:
        now = _succeed("POST", _collection(made), plain)
    if made["kind"] in _STATUS_BY_ITSELF and (status or now.get("status")):
        usual: Object = {"loadBalancer": {}} if made["kind"] == "Service" else {}
        _succeed("PUT", f"{path}/status", {**now, "status": status or usual})


def _succeed(method: str, path: str, body: Object | None = None) -> Object:
    code, answer = _request(method, path, body)
    assert code in (200, 201), f"{method} {path}: {code} {answer.get('message')}"
    return answer


def _request(method: str, path: str, body: Object | None = None) -> tuple[int, Object]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(ADDRESS, PORT, timeout=20.0, context=context)
    try:
        headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    return response.status, json.loads(text) if text.startswith(b"{") else {"message": text.decode()}
