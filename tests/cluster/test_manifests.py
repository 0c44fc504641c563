"""A directory of manifests as operators really treat it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyagent.cluster.directory_watch import Changes, DirectoryWatch, PollingWatch
from pyagent.cluster.manifests import ManifestSource, open_watch
from pyagent.model.source_events import Changed, Deleted, Malformed, Mended, Replaced
from tests.cluster.support import Recorder, endpoint_slice, node, service

Follow = Callable[..., Recorder]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "manifests"
    path.mkdir()
    return path


@pytest.fixture
def follow(directory: Path) -> Iterator[Follow]:
    started: list[ManifestSource] = []

    def start(watch: Callable[[Path], DirectoryWatch] = open_watch, wait: bool = True) -> Recorder:
        source = ManifestSource(directory, watch)
        recorder = Recorder()
        source.start(recorder)
        started.append(source)
        if wait:
            recorder.wait_for_watching()
        return recorder

    yield start
    for source in started:
        source.stop()


def write(path: Path, *objects: Any) -> None:
    """As an editor saves: into a dot file, then by rename."""
    hidden = path.with_name(f".{path.name}.tmp")
    hidden.write_text(json.dumps(objects[0]) if path.suffix == ".json" else yaml.safe_dump_all(objects))
    hidden.rename(path)


def problems(recorder: Recorder) -> list[str]:
    found = [p for e in recorder.events if isinstance(e, Replaced) for p in e.problems]
    return [str(p) for p in found + [e.problem for e in recorder.events if isinstance(e, Malformed)]]


def standing(recorder: Recorder) -> list[str]:
    """Those of the problems that hold now."""
    told = problems(recorder)
    for event in recorder.events:
        if isinstance(event, Mended):
            told.remove(str(event.problem))
    return told


def test_all_formats_and_kinds_arrive_as_one_list_for_each_kind(directory: Path, follow: Follow) -> None:
    write(directory / "web.yaml", service("web"), endpoint_slice("web-1", "web", "10.0.0.1"))
    write(directory / "node.json", node("node-a"))
    cidr = {"kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}}
    write(directory / "list.yml", {"apiVersion": "v1", "kind": "List", "items": [service("api"), cidr]})
    write(directory / "list.json", {"apiVersion": "v1", "kind": "List", "items": [service("db"), node("n")]})
    write(directory / "typed.json", {"kind": "ServiceList", "items": [{"metadata": {"name": "typed"}}]})
    recorder = follow()
    assert [e.kind for e in recorder.events if isinstance(e, Replaced)] == [
        "Service",
        "EndpointSlice",
        "Node",
        "ServiceCIDR",
    ]
    assert recorder.names() == {"web", "api", "db", "typed"}
    assert recorder.names("EndpointSlice") == {"web-1"}
    assert recorder.names("Node") == {"node-a", "n"}
    assert recorder.names("ServiceCIDR") == {"kubernetes"}
    assert problems(recorder) == []


def test_an_empty_directory_is_four_empty_lists(follow: Follow) -> None:
    assert [len(e.objects) for e in follow().events if isinstance(e, Replaced)] == [0, 0, 0, 0]


def test_files_that_come_change_and_go_are_followed(directory: Path, follow: Follow) -> None:
    recorder = follow()
    (directory / "web.yaml").write_text(yaml.safe_dump(service("web")))
    recorder.wait_for_names({"web"})
    (directory / "web.yaml").write_text(yaml.safe_dump(service("web", ip="10.96.0.99")))
    recorder.wait(lambda: recorder.held("Service", "shop", "web").spec.clusterIP == "10.96.0.99")
    write(directory / "api.json", service("api"))
    recorder.wait_for_names({"web", "api"})
    (directory / "web.yaml").unlink()
    recorder.wait_for_names({"api"})


def test_only_what_differs_is_emitted(directory: Path, follow: Follow) -> None:
    write(directory / "all.yaml", service("one"), service("two"))
    recorder = follow()
    write(directory / "all.yaml", service("one"), service("two", ip="10.96.0.2"), service("three"))
    recorder.wait_for_names({"one", "two", "three"})
    assert {e.object.metadata.name for e in recorder.of(Changed)} == {"two", "three"}


def test_renaming_a_file_changes_nothing(directory: Path, follow: Follow) -> None:
    write(directory / "a.yaml", service("web"))
    recorder = follow()
    (directory / "a.yaml").rename(directory / "b.yaml")
    write(directory / "c.yaml", service("marker"))
    recorder.wait_for_names({"web", "marker"})
    assert recorder.of(Deleted) == []
    assert problems(recorder) == []


def test_a_file_is_read_when_its_writer_closes_it(directory: Path, follow: Follow) -> None:
    recorder = follow()
    text = yaml.safe_dump(service("web"))
    with (directory / "web.yaml").open("w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        write(directory / "marker.yaml", service("marker"))
        recorder.wait_for_names({"marker"})
        file.write(text[len(text) // 2 :])
    recorder.wait_for_names({"web", "marker"})
    assert problems(recorder) == []


def test_dot_files_other_suffixes_and_folders_are_left_alone(directory: Path, follow: Follow) -> None:
    write(directory / ".hidden.yaml", service("hidden"))
    write(directory / "web.yaml~", service("backup"))
    (directory / "folder.yaml").mkdir()
    recorder = follow()
    write(directory / ".later.yaml", service("later"))
    write(directory / "web.yaml", service("web"))
    recorder.wait_for_names({"web"})
    assert [p for p in problems(recorder) if "folder.yaml" not in p] == []


def test_a_bad_file_is_named_with_its_line_and_the_rest_works(directory: Path, follow: Follow) -> None:
    (directory / "bad.yaml").write_text("kind: Service\nmetadata:\n  name: x\n bad: [\n")
    (directory / "bad.json").write_text('{\n "kind": "Service",\n "metadata": }\n')
    (directory / "cut.json").write_text('{\n "kind": "Service"')
    write(directory / "web.yaml", service("web"))
    recorder = follow()
    assert recorder.names() == {"web"}
    reported = problems(recorder)
    assert any("bad.yaml:" in p and "not YAML" in p for p in reported)
    assert any("(bad.json:3)" in p and "not JSON" in p for p in reported)
    assert any("(cut.json:2)" in p and "truncated" in p for p in reported)
    assert len(reported) == 3


def test_a_malformed_object_is_named_and_its_neighbours_work(directory: Path, follow: Follow) -> None:
    bad = service("bad", ports=[{"port": "http"}])
    write(directory / "all.yaml", service("web"), bad, {"kind": "Service", "metadata": {"namespace": "shop"}})
    recorder = follow()
    assert recorder.names() == {"web"}
    assert [p.partition(" (all.yaml:")[0] for p in problems(recorder)] == [
        "Service shop/bad: spec.ports[0].port: Expected int, got str",
        "Service shop/: metadata.name: is missing",
    ]


def test_a_file_that_becomes_bad_keeps_its_last_good_objects(directory: Path, follow: Follow) -> None:
    write(directory / "web.yaml", service("web"))
    recorder = follow()
    (directory / "web.yaml").write_text("kind: Service\nmetadata: [")
    recorder.wait(lambda: bool(problems(recorder)))
    assert recorder.names() == {"web"}
    assert problems(recorder)[0].startswith("Manifest web.yaml: not YAML")
    assert "the last good version stays" in problems(recorder)[0]
    write(directory / "web.yaml", service("other"))
    recorder.wait_for_names({"other"})


def test_an_object_that_becomes_bad_keeps_its_last_good_version(directory: Path, follow: Follow) -> None:
    write(directory / "web.yaml", service("web"), service("api"))
    recorder = follow()
    write(directory / "web.yaml", service("web", ports="80"), service("api", ip="10.96.0.2"))
    recorder.wait(lambda: bool(problems(recorder)))
    assert recorder.names() == {"web", "api"}
    assert problems(recorder) == [
        "Manifest web.yaml: Service shop/web: spec.ports: Expected array | null, got str; "
        "the last good version stays (web.yaml:1)"
    ]


def test_the_same_problem_is_reported_once(directory: Path, follow: Follow) -> None:
    write(directory / "web.yaml", service("bad", ports="80"), service("web"))
    recorder = follow()
    write(directory / "web.yaml", service("bad", ports="80"), service("web", ip="10.96.0.2"))
    recorder.wait(lambda: bool(recorder.of(Changed)))
    assert len(problems(recorder)) == 1


def test_of_an_object_in_two_files_the_first_name_counts(directory: Path, follow: Follow) -> None:
    write(directory / "b.yaml", service("web", ip="10.96.0.2"))
    write(directory / "a.yaml", service("web", ip="10.96.0.1"))
    recorder = follow()
    assert recorder.held("Service", "shop", "web").spec.clusterIP == "10.96.0.1"
    assert problems(recorder) == [
        "Manifest b.yaml: Service shop/web is already in a.yaml, which comes first; remove one (b.yaml)"
    ]
    (directory / "a.yaml").unlink()
    recorder.wait(lambda: recorder.held("Service", "shop", "web").spec.clusterIP == "10.96.0.2")
    assert recorder.of(Deleted) == []


def test_a_bad_copy_in_another_file_takes_no_object_away(directory: Path, follow: Follow) -> None:
    write(directory / "a.yaml", service("web"))
    recorder = follow()
    write(directory / "b.json", service("web", ports="http"))
    recorder.wait(lambda: problems(recorder) != [])
    assert recorder.names() == {"web"}
    assert problems(recorder)[0].startswith("Manifest b.json: Service shop/web: spec.ports: Expected array")
    assert problems(recorder)[0].endswith("; the one in a.yaml counts (b.json:1)")


def test_a_bad_copy_in_the_same_file_takes_no_object_away(directory: Path, follow: Follow) -> None:
    recorder = follow()
    write(directory / "a.yaml", service("web"), service("web", ports="http"))
    recorder.wait(lambda: problems(recorder) != [])
    assert recorder.names() == {"web"}


@pytest.mark.parametrize("bad", ["{", '{"kind": "Service"}', json.dumps(service("web", ports="http"))])
@pytest.mark.parametrize("at_start", [True, False])
def test_a_problem_ends_when_its_file_is_mended_or_gone(
    directory: Path, follow: Follow, bad: str, at_start: bool
) -> None:
    path = directory / "a.json"
    recorder = None if at_start else follow()
    path.write_text(bad)
    recorder = recorder or follow()
    recorder.wait(lambda: standing(recorder) != [])
    write(path, service("web"))
    recorder.wait_for_names({"web"})
    recorder.wait(lambda: standing(recorder) == [])
    path.write_text(bad)
    recorder.wait(lambda: standing(recorder) != [])
    path.unlink()
    recorder.wait(lambda: standing(recorder) == [])


def test_a_copy_is_no_problem_once_the_other_is_gone(directory: Path, follow: Follow) -> None:
    for name in ("a.yaml", "b.yaml"):
        write(directory / name, service("web"))
    recorder = follow()
    assert len(standing(recorder)) == 1
    (directory / "a.yaml").unlink()
    recorder.wait(lambda: standing(recorder) == [])
    assert recorder.names() == {"web"}


def test_a_wrong_api_version_is_reported_and_unknown_kinds_are_not(directory: Path, follow: Follow) -> None:
    old = service("web") | {"apiVersion": "v1beta3"}
    write(directory / "all.yaml", old, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}})
    recorder = follow()
    assert problems(recorder) == [
        "Service shop/web: apiVersion: version 'v1beta3' is not supported, use v1 (all.yaml:1)"
    ]


def test_a_missing_directory_is_one_line_and_then_found(directory: Path, follow: Follow) -> None:
    directory.rmdir()
    recorder = follow(wait=False)
    recorder.wait(lambda: bool(recorder.errors()))
    assert recorder.errors() == [f"manifests directory {directory}: no such file or directory; restore it"]
    assert recorder.of(Replaced) == []
    directory.mkdir()
    write(directory / "web.yaml", service("web"))
    recorder.wait_for_names({"web"})


def test_a_directory_that_is_moved_away_keeps_its_last_state(directory: Path, follow: Follow) -> None:
    write(directory / "web.yaml", service("web"))
    recorder = follow()
    directory.rename(directory.with_name("away"))
    recorder.wait(lambda: bool(recorder.errors()))
    assert "what was read last stays" in recorder.errors()[0]
    assert recorder.names() == {"web"}
    directory.mkdir()
    recorder.wait(lambda: any("empty" in e for e in recorder.errors()))
    assert recorder.names() == {"web"}
    write(directory / "api.yaml", service("api"))
    recorder.wait_for_names({"api"})
    assert len(recorder.of(Replaced)) == 1


def test_a_directory_that_is_replaced_is_read_anew(directory: Path, follow: Follow) -> None:
    write(directory / "web.yaml", service("web"))
    recorder = follow()
    new = directory.with_name("new")
    new.mkdir()
    write(new / "api.yaml", service("api"))
    directory.rename(directory.with_name("old"))
    new.rename(directory)
    recorder.wait_for_names({"api"})
    write(directory / "more.yaml", service("more"))
    recorder.wait_for_names({"api", "more"})


def test_links_as_a_mounted_config_map_has_them_are_followed(directory: Path, follow: Follow) -> None:
    for version, ip in (("..v1", "10.96.0.1"), ("..v2", "10.96.0.2")):
        (directory / version).mkdir()
        (directory / version / "web.yaml").write_text(yaml.safe_dump(service("web", ip=ip)))
    (directory / "..data").symlink_to("..v1")
    (directory / "web.yaml").symlink_to("..data/web.yaml")
    recorder = follow()
    assert recorder.held("Service", "shop", "web").spec.clusterIP == "10.96.0.1"
    (directory / "..data_tmp").symlink_to("..v2")
    (directory / "..data_tmp").rename(directory / "..data")
    recorder.wait(lambda: recorder.held("Service", "shop", "web").spec.clusterIP == "10.96.0.2")


def test_a_fifo_does_not_block_the_rest(directory: Path, follow: Follow) -> None:
    os.mkfifo(directory / "a.yaml")
    write(directory / "web.yaml", service("web"))
    recorder = follow()
    assert recorder.names() == {"web"}
    assert problems(recorder) == ["Manifest a.yaml: is no regular file; move it away (a.yaml)"]


def test_a_fifo_and_a_folder_that_come_are_reported(directory: Path, follow: Follow) -> None:
    recorder = follow()
    os.mkfifo(directory / "a.yaml")
    (directory / "b.yaml").mkdir()
    recorder.wait(lambda: len(problems(recorder)) == 2)


def test_changed_permissions_of_the_directory_make_everything_be_looked_at(directory: Path) -> None:
    never = os.eventfd(0)
    watch = open_watch(directory)
    try:
        directory.chmod(0o500)
        assert watch.wait(10.0, never) == Changes(everything=True)
    finally:
        watch.close()
        os.close(never)


def test_unchanged_files_are_not_read_again(
    directory: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = ManifestSource._read

    def counted(self: ManifestSource, name: str) -> Any:
        read.append(name)
        return original(self, name)

    monkeypatch.setattr(ManifestSource, "_read", counted)
    for i in range(20):
        write(directory / f"web-{i}.yaml", service(f"web-{i}"))
    recorder = follow()
    read.clear()
    write(directory / "new.yaml", service("new"))
    recorder.wait(lambda: "new" in recorder.names())
    assert set(read) == {"new.yaml"}


def test_without_inotify_the_directory_is_polled(directory: Path, follow: Follow) -> None:
    write(directory / "web.yaml", service("web"))
    recorder = follow(lambda path: PollingWatch(0.02))
    write(directory / "web.yaml", service("web", ip="10.96.0.9"))
    recorder.wait(lambda: recorder.held("Service", "shop", "web").spec.clusterIP == "10.96.0.9")
    write(directory / "api.yaml", service("api"))
    recorder.wait_for_names({"web", "api"})
    (directory / "web.yaml").unlink()
    recorder.wait_for_names({"api"})


class LossyWatch:
    """A watch whose queue overflowed: it says only that something happened."""

    def __init__(self, path: Path) -> None:
        self._real = open_watch(path)

    def wait(self, seconds: float, wake: int) -> Changes:
        real = self._real.wait(seconds, wake)
        return Changes(everything=bool(real.names), moved=real.moved)

    def close(self) -> None:
        self._real.close()


def test_after_a_queue_overflow_everything_is_looked_at(directory: Path, follow: Follow) -> None:
    write(directory / "web.yaml", service("web"))
    write(directory / "gone.yaml", service("gone"))
    recorder = follow(LossyWatch)
    (directory / "gone.yaml").unlink()
    write(directory / "new.yaml", service("new"))
    recorder.wait_for_names({"web", "new"})


def test_nothing_is_emitted_after_stop(directory: Path) -> None:
    source, recorder = ManifestSource(directory), Recorder()
    source.start(recorder)
    recorder.wait_for_watching()
    source.stop()
    count = len(recorder.events)
    write(directory / "web.yaml", service("web"))
    source.stop()
    assert len(recorder.events) == count


def test_a_whole_tree_can_be_removed_and_restored(directory: Path, follow: Follow) -> None:
    write(directory / "web.yaml", service("web"))
    recorder = follow()
    shutil.rmtree(directory)
    recorder.wait(lambda: bool(recorder.errors()))
    directory.mkdir()
    write(directory / "web.yaml", service("web"))
    recorder.wait_for_names({"web"})
