"""The C and the Python of the layout cannot drift apart, and words are read whole."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pyagent.datapath.layout import Hook
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel import source_text
from pyagent.kernel.links import ATTACH_TYPE, programs
from pyagent.kernel.loader import Unit
from pyagent.kernel.map_set import MapSet
from pyagent.model.failures import KernelRefused
from tests.datapath.ground.hooks import SMALL, Hooks

pytestmark = pytest.mark.kernel


@pytest.fixture
def maps(bpffs: Path) -> Iterator[MapSet]:
    bpffs.mkdir()
    made = MapSet.create(bpffs / "v1-1", SMALL)
    yield made
    made.close()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources that the compiler gets instead."""
    copy = tmp_path / "bpf"
    shutil.copytree(source_text.sources_folder(), copy)
    monkeypatch.setattr(source_text, "sources_folder", lambda: copy)
    return copy


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name} has {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new))


CHANGES = {
    "a field that moved": (
        "\t__u32 incarnation;\n\t__u32 service_port;\n\t__u32 node;\n",
        "\t__u32 service_port;\n\t__u32 incarnation;\n\t__u32 node;\n",
        "struct backend.incarnation: offset differs",
    ),
    "a wider field": (
        "\t__u64 last_used; /* seconds since boot */",
        "\t__u64 last_used;\n\t__u64 first_used;",
        "struct affinity.slot: offset differs",
    ),
    "an outcome with another number": (
        "OUTCOME_REFUSED_UNSTABLE = 10",
        "OUTCOME_REFUSED_UNSTABLE = 30",
        "OUTCOME_REFUSED_UNSTABLE differs",
    ),
    "another header": (
        "#define BLOCK_HEADER_WORDS 3",
        "#define BLOCK_HEADER_WORDS 2",
        "BLOCK_HEADER_WORDS differs",
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_difference_fails_the_compilation_by_name(
    maps: MapSet, sources: Path, change: tuple[str, str, str]
) -> None:
    old, new, told = change
    replace(sources / "contract.h", old, new)
    with pytest.raises(KernelRefused, match=told):
        Unit("translate.c", maps).load(programs(frozenset(ATTACH_TYPE)))


def test_a_mistake_is_told_with_file_and_line(maps: MapSet, sources: Path) -> None:
    """Headers are pasted into one text; the compiler must still name the right one."""
    path = sources / "lib" / "choice.h"
    lines = path.read_text().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines, 1) if "return word ? READ_WORD(word)" in line)
    lines[at - 1] = "\treturn no_such_name;\n"
    path.write_text("".join(lines))
    with pytest.raises(KernelRefused, match=rf"lib/choice\.h:{at}:\d+: error"):
        Unit("translate.c", maps).load(programs(frozenset(ATTACH_TYPE)))


class Instruction(NamedTuple):
    """Of `struct bpf_insn` (include/uapi/linux/bpf.h)."""

    code: int
    to: int
    source: int
    offset: int
    value: int


LOAD_IMMEDIATE, PSEUDO_MAP_FD = 0x18, 1
LOADS = {0x61: 4, 0x69: 2, 0x71: 1, 0x79: 8}
MOVE, CALL = 0xBF, 0x85


def translated_text(program_fd: int) -> list[Instruction]:
    """What the verifier made of a program (BPF_OBJ_GET_INFO_BY_FD, xlated_prog_insns)."""
    size = bpf.program_info(program_fd).translated_bytes
    text = bytearray(size)
    info = bytearray(232)
    struct.pack_into("=I", info, 20, size)  # xlated_prog_len
    struct.pack_into("=Q", info, 32, bpf.address_of(text))  # xlated_prog_insns
    attributes = bytearray(struct.pack("=IIQ", program_fd, len(info), bpf.address_of(info)))
    bpf.bpf(bpf.OBJ_GET_INFO_BY_FD, attributes, "program text")
    assert struct.unpack_from("=Q", info, 32)[0] != 0, "the kernel gives no text: not enough rights"
    return [
        Instruction(code, registers & 15, registers >> 4, offset, value)
        for code, registers, offset, value in struct.iter_unpack("=BBhi", bytes(text))
    ]


def loads_from(text: list[Instruction], map_id: int) -> list[int]:
    """Widths in bytes of the loads through pointers into one array map.

    Look-ups in arrays are inlined: the map's address comes into r1, some arithmetic leaves the element's
    pointer in r0. The first load through that or a copy counts.
    """
    widths = []
    for start, first in enumerate(text):
        if first.code != LOAD_IMMEDIATE or first.source != PSEUDO_MAP_FD or first.value != map_id:
            continue
        pointers = {0}
        for step in text[start + 2 : start + 40]:
            if step.code in (LOAD_IMMEDIATE, CALL):
                break
            if step.code in LOADS and step.source in pointers and step.offset == 0:
                widths.append(LOADS[step.code])
                break
            if step.code == MOVE and step.source in pointers:
                pointers.add(step.to)
    return widths


def widths_of_loads(program_fd: int, maps: MapSet, map_name: str) -> list[int]:
    return loads_from(translated_text(program_fd), bpf.map_info(maps.fd(map_name)).id)


@pytest.mark.parametrize("name", ["connect4", "connect6", "sendmsg4", "sendmsg6"])
@pytest.mark.parametrize("map_name", ["sets", "slots"])
def test_words_are_read_by_one_load(hooks: Hooks, name: str, map_name: str) -> None:
    """Taken apart as a struct they would be read in pieces, and pieces can tear."""
    state = next(s for s in hooks.datapath.link_states() if s.hook.name.lower() == name)
    program = bpf.program_fd_by_id(state.program_id)
    try:
        widths = widths_of_loads(program, hooks.datapath.maps, map_name)
    finally:
        os.close(program)
    assert widths, "no look-up was recognised"
    assert set(widths) == {8}
    if map_name == "sets":
        assert len(widths) == 1, "the word that decides is read once"


def test_a_word_read_in_pieces_would_be_seen(maps: MapSet, sources: Path) -> None:
    replace(
        sources / "lib" / "lookup.h",
        "#define READ_WORD(pointer) (*(volatile u64 *)(pointer))",
        "#define HALF(pointer, n) ((volatile u32 *)(pointer))[n]\n"
        "#define READ_WORD(pointer) ((u64)HALF(pointer, 1) << 32 | HALF(pointer, 0))",
    )
    program = Unit("translate.c", maps).load(programs(frozenset({Hook.CONNECT4})))["connect4"]
    try:
        assert 4 in widths_of_loads(program, maps, "sets")
    finally:
        os.close(program)
