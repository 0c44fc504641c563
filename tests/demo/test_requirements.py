"""A machine that cannot run the demo is told what it lacks and what to do."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
from pathlib import Path

import pytest

from pyagent.demo.calls import call
from pyagent.demo.requirements import cgroup2_root, missing_requirements
from pyagent.demo.run import EXIT_MISSING, Options, clean, run_demo

NOBODY = 65534


def become_nobody() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def test_without_root_the_demo_says_so_and_ends_with_3() -> None:
    def as_nobody() -> tuple[int, int, str]:
        become_nobody()
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            return run_demo(Options()), clean(), said.getvalue()

    code, clean_code, said = call(as_nobody)
    assert (code, clean_code) == (EXIT_MISSING, EXIT_MISSING)
    assert "needs root" in said
    assert "sudo" in said


def test_a_missing_bcc_is_told_with_the_distributions_package() -> None:
    def without_packages() -> list[str]:
        sys.modules.pop("bcc", None)
        sys.path.clear()
        return [str(one) for one in missing_requirements()]

    (told,) = [text for text in call(without_packages) if text.startswith("BCC")]
    for package in ("Debian, Ubuntu: python3-bpfcc", "Fedora: python3-bcc"):
        assert package in told


def test_another_package_called_bcc_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").touch()

    def with_the_other() -> bool:
        sys.modules.pop("bcc", None)
        sys.path[:] = [str(tmp_path)]
        return any(one.what.startswith("BCC") for one in missing_requirements())

    assert call(with_the_other)


@pytest.mark.kernel
def test_the_cgroup_root_is_a_cgroup_v2_folder() -> None:
    root = cgroup2_root()
    assert root is not None
    assert (root / "cgroup.procs").exists()
    assert (root / "cgroup.subtree_control").exists()


@pytest.mark.kernel
def test_a_container_without_capabilities_is_told_from_a_missing_root() -> None:

    def dropped() -> list[str]:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
        none = (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, none) == 0
        return [one.what for one in missing_requirements()]

    assert "capabilities" in call(dropped)
