"""Whatever decodes is survived: it is reported or ignored, and a healthy Service goes on serving."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pyagent.model.kube_objects import STRUCT_OF, KubeObject
from tests.unit.desired.objects import NODE, Cluster, endpoint_slice, kind_of, ready, service

WEB = "10.96.0.10"
SOUND = "sound"  # a namespace that is never generated

words = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["web", "shop", "IPv4", "Local", "TCP", "LoadBalancer", "10.96.0.99", "None", NODE]),
    st.sampled_from(["10.0.0.0/8", "2024-01-01T00:00:00Z", "x" * 400, "\x00", "::1", "http", "ClientIP"]),
)
numbers = st.one_of(st.integers(-(2**63), 2**64 - 1), st.sampled_from([0, 1, 80, 65535, 65536]))


def anything(field_type: Any) -> st.SearchStrategy[Any]:
    """Values that the decoder lets through for a field."""
    info = msgspec.inspect
    match field_type:
        case info.StrType():
            return words
        case info.IntType():
            return numbers
        case info.BoolType():
            return st.booleans()
        case info.NoneType():
            return st.none()
        case info.UnionType(types):
            return st.one_of(*map(anything, types))
        case info.ListType(item_type=item):
            return st.lists(anything(item), max_size=3)
        case info.DictType():
            return st.dictionaries(words, words, max_size=2)
        case info.StructType(cls=struct, fields=fields):
            values = {field.name: anything(field.type) for field in fields}
            return st.fixed_dictionaries(values).map(lambda body: struct(**body))
    raise AssertionError(field_type)


objects: st.SearchStrategy[KubeObject] = st.one_of(
    *[anything(msgspec.inspect.type_info(struct)) for struct in STRUCT_OF.values()]
)


def renamed(obj: KubeObject, name: str) -> KubeObject:
    metadata = msgspec.structs.replace(obj.metadata, name=name, namespace="shop")
    return msgspec.structs.replace(obj, metadata=metadata)


@given(st.lists(objects, max_size=4), st.booleans())
def test_no_object_stops_another(listed: list[KubeObject], named: bool) -> None:
    cluster = Cluster(service(namespace=SOUND), endpoint_slice(ready("10.1.0.1"), namespace=SOUND))
    for number, obj in enumerate(listed):
        kind = kind_of(obj)
        cluster.snapshot.put(kind, renamed(obj, f"odd-{number}") if named else obj)
    cluster.update()
    assert cluster.dial(WEB) == ["10.1.0.1:8080"]
    assert all(line.isprintable() and len(line) < 1000 for line in cluster.told())
    for number, obj in enumerate(listed):
        metadata = renamed(obj, f"odd-{number}").metadata if named else obj.metadata
        cluster.snapshot.delete(kind_of(obj), metadata.namespace, metadata.name)
        if kind_of(obj) in ("Node", "ServiceCIDR"):
            cluster.snapshot.delete(kind_of(obj), "", metadata.name)
    cluster.update()
    assert [key.namespace for key in cluster.ports] == [SOUND]
