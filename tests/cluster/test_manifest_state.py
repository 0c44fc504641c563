"""Whatever happens to the files of a directory, the events tell the same as the files."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyagent.cluster.manifest_file import FileContent, Key, file_problem
from pyagent.cluster.manifest_state import ManifestState
from pyagent.model.kube_objects import KubeObject, Metadata, Service, ServiceSpec
from pyagent.model.source_events import Changed, Deleted, Malformed, Mended, Problem, SourceEvent

FILES = ("a.yaml", "b.yaml", "c.yaml")
Said = dict[str, str]  # object name -> ClusterIP

contents = st.dictionaries(st.sampled_from("xyz"), st.sampled_from("123"), max_size=3)
batches = st.lists(
    st.dictionaries(st.sampled_from(FILES), st.none() | contents | st.just("bad"), min_size=1, max_size=3),
    max_size=8,
)


def content_of(name: str, said: Said | str | None) -> FileContent | None:
    if said is None:
        return None
    if isinstance(said, str):
        return FileContent({}, (), file_problem(name, "cut"))
    return FileContent(
        {
            Key("Service", "shop", n): Service(Metadata(name=n, namespace="shop"), ServiceSpec(clusterIP=ip))
            for n, ip in said.items()
        }
    )


def tell(told: set[Problem], events: list[SourceEvent]) -> None:
    for event in events:
        match event:
            case Malformed(problem=problem):
                assert problem not in told  # reported once
                told.add(problem)
            case Mended(problem=problem):
                told.remove(problem)


def replay(held: Said, events: list[SourceEvent]) -> None:
    for event in events:
        match event:
            case Changed(object=Service() as one):
                assert held.get(one.metadata.name) != one.spec.clusterIP  # nothing is told twice
                held[one.metadata.name] = str(one.spec.clusterIP)
            case Deleted(name=name):
                del held[name]
            case Malformed(kind=kind):
                assert kind == "Manifest"  # no object is made absent by a file's problem


@given(batches)
def test_the_first_file_counts_and_bad_files_keep_what_they_said(
    steps: list[dict[str, Said | str | None]],
) -> None:
    state = ManifestState()
    files: dict[str, Said] = {}
    held: Said = {}
    for step in steps:
        for name, said in step.items():
            if said is None:
                files.pop(name, None)
            elif not isinstance(said, str):
                files[name] = said
        replay(held, state.update({n: content_of(n, said) for n, said in step.items()}, 0.0))
        expected: Said = {}
        for name in sorted(files, reverse=True):
            expected |= files[name]
        assert held == expected
        served: list[KubeObject] = state.objects_of("Service")
        assert {o.metadata.name for o in served} == expected.keys()


@given(batches)
def test_saying_the_same_again_says_nothing(steps: list[dict[str, Said | str | None]]) -> None:
    state = ManifestState()
    for step in steps:
        files = {n: content_of(n, said) for n, said in step.items()}
        state.update(files, 0.0)
        assert state.update(files, 1.0) == []


@given(batches)
def test_what_holds_is_what_a_newcomer_is_told(steps: list[dict[str, Said | str | None]]) -> None:
    state = ManifestState()
    told: set[Problem] = set()
    files: dict[str, FileContent | None] = {}
    for step in steps:
        fresh = {n: content_of(n, {} if said == "bad" else said) for n, said in step.items()}
        files |= fresh
        tell(told, state.update(fresh, 0.0))
        newcomer: set[Problem] = set()
        tell(newcomer, ManifestState().update(files, 0.0))
        assert told == newcomer
    tell(told, state.update(dict.fromkeys(files), 0.0))
    assert told == set()
