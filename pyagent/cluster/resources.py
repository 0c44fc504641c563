"""What is listed and watched, and the queries for it (Kubernetes API concepts)."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlencode

from pyagent.model.kube_objects import LABEL_HEADLESS, Kind

PAGE = 500
JSON = "application/json"
_METADATA = "application/json;as={form};g=meta.k8s.io;v=v1,application/json"


class Resource(NamedTuple):
    """One kind, as the API serves it."""

    kind: Kind
    group: str
    plural: str
    paths: tuple[str, ...]  # the newest version first
    label_selector: str = ""
    field_selector: str = ""
    field_selector_optional: bool = False  # servers may answer 400; the desired state filters again
    optional: bool = False  # a server without this API has no such objects
    metadata_only: bool = False  # names, labels and annotations are all that is read
    scattered: bool = False  # for a quorum read servers before 1.31 go through all objects of the cluster

    @property
    def rbac_rule(self) -> str:
        """The ClusterRole rule that a service account needs."""
        return f'apiGroups: ["{self.group}"], resources: ["{self.plural}"], verbs: ["list", "watch"]'

    def accept(self, watch: bool) -> str:
        """The Accept header; a server that cannot leave all but metadata out answers with whole objects."""
        return metadata_form(watch) if self.metadata_only else JSON


# kube-proxy leaves Services of other proxies out by their label; they are listed here, so that their
# ClusterIPs can be passed on instead of refused.
SERVICES = Resource(
    "Service",
    "",
    "services",
    ("/api/v1/services",),
    field_selector="spec.clusterIP!=None",
    field_selector_optional=True,
)
ENDPOINT_SLICES = Resource(
    "EndpointSlice",
    "discovery.k8s.io",
    "endpointslices",
    ("/apis/discovery.k8s.io/v1/endpointslices",),
    label_selector=f"!{LABEL_HEADLESS}",
)
SERVICE_CIDRS = Resource(
    "ServiceCIDR",
    "networking.k8s.io",
    "servicecidrs",
    ("/apis/networking.k8s.io/v1/servicecidrs", "/apis/networking.k8s.io/v1beta1/servicecidrs"),
    optional=True,
)


NAMESPACES = Resource("Namespace", "", "namespaces", ("/api/v1/namespaces",), metadata_only=True)


def metadata_form(watch: bool) -> str:
    """The Accept header for metadata alone: of a list, or of each event of a watch."""
    return _METADATA.format(form="PartialObjectMetadata" if watch else "PartialObjectMetadataList")


def pods_of(node_name: str) -> Resource:
    """The Pods of one node."""
    selector = f"spec.nodeName={node_name}"
    return Resource("Pod", "", "pods", ("/api/v1/pods",), field_selector=selector, scattered=True)


def nodes(own_name: str | None) -> Resource:
    """This node alone, or all nodes for None."""
    selector = f"metadata.name={own_name}" if own_name else ""
    return Resource("Node", "", "nodes", ("/api/v1/nodes",), field_selector=selector)


def list_query(resource: Resource, fields: bool, version: str, token: str, limit: int = PAGE) -> str:
    """The query of one page of a list.

    Args:
        fields: whether to send the field selector.
        version: "0" whatever the server has at hand, "" the newest (a quorum read), else at least this one.
        token: from the page before, "" for the first.
        limit: objects in a page; 0 for all at once.
    """
    query = _selectors(resource, fields) | ({"limit": str(limit)} if limit else {})
    if token:
        query["continue"] = token
    elif version:
        query["resourceVersion"] = version
        if version != "0":
            query["resourceVersionMatch"] = "NotOlderThan"
    return urlencode(query)


def count_query(most: int) -> str:
    """Tells whether there are more than `most`. An exact read, since cached ones ignore limits."""
    return urlencode({"limit": str(most + 1)})


def watch_query(resource: Resource, fields: bool, version: str, seconds: int) -> str:
    """The query of a watch from a version on; version "" asks for a streamed list first (KEP-3157)."""
    query = _selectors(resource, fields)
    query |= {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
    if version:
        query["resourceVersion"] = version
    else:
        query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    return urlencode(query)


def _selectors(resource: Resource, fields: bool) -> dict[str, str]:
    query: dict[str, str] = {}
    if resource.label_selector:
        query["labelSelector"] = resource.label_selector
    if fields and resource.field_selector:
        query["fieldSelector"] = resource.field_selector
    return query
