"""A changed configuration file ends the agent; anything less does not."""

from __future__ import annotations

import threading
from pathlib import Path

from pyagent.agent.config_watch import ConfigurationChanged, ConfigWatch

SOON = 0.01


def test_new_contents_are_told_once(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("mode: nftables\n")
    told: list[ConfigurationChanged] = []
    came = threading.Event()

    def changed(error: ConfigurationChanged) -> None:
        told.append(error)
        came.set()

    watch = ConfigWatch(path, changed, SOON)
    watch.start()
    path.write_text("mode: iptables\n")
    assert came.wait(5)
    path.write_text("mode: ipvs\n")
    watch.stop()
    assert len(told) == 1
    assert str(path) in str(told[0])


def test_a_file_that_is_away_or_written_again_unchanged_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("mode: nftables\n")
    looked = threading.Event()
    watch = ConfigWatch(path, lambda _error: looked.set(), SOON)
    watch.start()
    path.unlink()
    assert not looked.wait(0.1)
    path.write_text("mode: nftables\n")
    assert not looked.wait(0.1)
    watch.stop()


def test_a_link_that_is_pointed_elsewhere_is_a_change(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("mode: nftables\n")
    (tmp_path / "two").write_text("mode: iptables\n")
    link = tmp_path / "config.yaml"
    link.symlink_to("one")
    came = threading.Event()
    watch = ConfigWatch(link, lambda _error: came.set(), SOON)
    watch.start()
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(link)
    assert came.wait(5)
    watch.stop()
