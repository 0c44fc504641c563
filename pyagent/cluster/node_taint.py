"""Takes one taint off this node's Node object, and changes nothing else of it."""

from __future__ import annotations

import msgspec

from pyagent.cluster.connection import Answer, Connection
from pyagent.cluster.decode import UNREADABLE, decode_status
from pyagent.cluster.refusals import MAX_STATUS_BYTES
from pyagent.cluster.resources import nodes
from pyagent.model.failures import ClusterUnreachable, sanitized
from pyagent.model.kube_objects import Metadata

RBAC_RULE = 'apiGroups: [""], resources: ["nodes"], verbs: ["patch"]'
ANSWER_SECONDS = 30.0
MAX_NODE_BYTES = 16 << 20
ATTEMPTS = 5
"""Others change Nodes too: kubelet its status, controllers taints."""


class _Spec(msgspec.Struct, frozen=True):
    taints: list[dict[str, msgspec.Raw]] | None = None


class _Node(msgspec.Struct, frozen=True):
    metadata: Metadata = Metadata()
    spec: _Spec = _Spec()


class _Nodes(msgspec.Struct, frozen=True):
    items: list[_Node] | None = None


class NodeTaint:
    """A taint by its key, whatever its value and effect. Used by one thread; `cut` may come from another."""

    def __init__(self, connection: Connection, node_name: str, key: str) -> None:
        self._connection = connection
        self._node_name = node_name
        self._key = key

    def remove(self) -> bool:
        """Whether it was there. The other taints stay as they are, also ones that somebody adds meanwhile.

        Raises:
            ClusterUnreachable: no answer, or a refusal; the text has the remedy.
        """
        for _ in range(ATTEMPTS):
            node = self._read()
            taints = (node.spec.taints or []) if node else []
            kept = [taint for taint in taints if not self._is_it(taint)]
            if node is None or len(kept) == len(taints):
                return False
            if self._replace(node.metadata.resourceVersion, kept):
                return True
        raise ClusterUnreachable(f"Node {self._node_name} changes faster than its taint can be removed")

    def cut(self) -> None:
        self._connection.cut()

    def close(self) -> None:
        self._connection.close()

    def _is_it(self, taint: dict[str, msgspec.Raw]) -> bool:
        return "key" in taint and msgspec.json.decode(taint["key"]) == self._key

    def _read(self) -> _Node | None:
        """A list of one: the agent may list Nodes, and need not be allowed to get them."""
        resource = nodes(self._node_name)
        answer = self._answer("GET", f"{resource.paths[0]}?fieldSelector={resource.field_selector}")
        body = answer.read_all(MAX_NODE_BYTES)
        if answer.status != 200:
            raise ClusterUnreachable(self._explained(answer, body, resource.rbac_rule))
        try:
            items = msgspec.json.decode(body, type=_Nodes).items or []
        except UNREADABLE as error:
            raise ClusterUnreachable(
                f"Node {self._node_name} cannot be read: {sanitized(str(error))}"
            ) from None
        return next((node for node in items if node.metadata.name == self._node_name), None)

    def _replace(self, version: str, taints: list[dict[str, msgspec.Raw]]) -> bool:
        """False if the Node is not what it was at that version: taints are one value to the API server."""
        patch = {"metadata": {"resourceVersion": version}, "spec": {"taints": taints}}
        answer = self._answer("PATCH", f"/api/v1/nodes/{self._node_name}", msgspec.json.encode(patch))
        body = answer.read_all(MAX_NODE_BYTES)
        if answer.status == 409:
            return False
        if answer.status != 200:
            raise ClusterUnreachable(self._explained(answer, body, RBAC_RULE))
        return True

    def _answer(self, method: str, path: str, body: bytes = b"") -> Answer:
        def send() -> Answer:
            if method == "PATCH":
                return self._connection.patch(path, body, ANSWER_SECONDS)
            return self._connection.get(path, ANSWER_SECONDS)

        answer = send()
        if answer.status == 401:
            answer.read_all(MAX_STATUS_BYTES)
            self._connection.renew()
            answer = send()
        return answer

    def _explained(self, answer: Answer, body: bytes | bytearray, rule: str) -> str:
        if answer.status == 403:
            return f"not allowed (403); add to the agent's ClusterRole: {rule}"
        message = decode_status(body).message
        return f"the API server answered {answer.status}{': ' + sanitized(message, 200) if message else ''}"
