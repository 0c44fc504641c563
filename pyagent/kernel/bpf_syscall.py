"""bpf(2) through ctypes: the few commands we use, one Python function each.

No libbpf and no BCC, so that readers of the pins need neither. Structures follow `union bpf_attr` in
include/uapi/linux/bpf.h; every failure is an OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
from typing import NamedTuple

from pyagent.model.failures import KernelRefused

_SYSCALL_NUMBER = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

MAP_CREATE, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_DELETE_ELEM, MAP_GET_NEXT_KEY = range(5)
PROG_LOAD = 5
OBJ_PIN, OBJ_GET, PROG_ATTACH, PROG_DETACH = 6, 7, 8, 9
PROG_GET_NEXT_ID, PROG_GET_FD_BY_ID, MAP_GET_FD_BY_ID = 11, 13, 14
OBJ_GET_INFO_BY_FD, PROG_QUERY = 15, 16
BTF_LOAD, BTF_GET_FD_BY_ID = 18, 19
MAP_LOOKUP_BATCH, MAP_UPDATE_BATCH, MAP_DELETE_BATCH = 24, 26, 27
LINK_CREATE, LINK_UPDATE, LINK_GET_FD_BY_ID = 28, 29, 30
ENABLE_STATS, ITER_CREATE = 32, 33

BPF_F_QUERY_EFFECTIVE = 1
BPF_NOEXIST = 1
OBJ_RDONLY = 1 << 3


def _number() -> int:
    machine = os.uname().machine
    try:
        return _SYSCALL_NUMBER[machine]
    except KeyError:
        raise KernelRefused(
            f"bpf(2) on {machine}: unknown system call number; kubesock runs on x86_64"
        ) from None


_NUMBER = _number()


def bpf(command: int, attributes: ctypes.Array[ctypes.c_char] | bytearray, what: str) -> int:
    """One bpf(2) call. `attributes` is read and, for queries, written by the kernel.

    Raises:
        OSError: the kernel's errno; `what` names the object.
    """
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    while True:
        result = int(_syscall(_NUMBER, command, buffer, len(attributes)))
        if result >= 0:
            return result
        error = ctypes.get_errno()
        if error == errno.EPERM and command in _CHARGED and lift_locked_memory():
            continue
        if error != errno.EINTR:
            raise OSError(error, f"{os.strerror(error)} ({what})")


_CHARGED = {MAP_CREATE, PROG_LOAD, BTF_LOAD}


def lift_locked_memory() -> bool:
    """Raise this process's own RLIMIT_MEMLOCK; whether that changed anything.

    Before Linux 5.11 maps and programs count against it, and too little of it is EPERM like a lack of rights.
    """
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    if resource.getrlimit(resource.RLIMIT_MEMLOCK) == unlimited:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
    except (OSError, ValueError):
        return False  # needs CAP_SYS_RESOURCE: the caller tells of the EPERM
    return True


def _name(text: str) -> bytes:
    return "".join(c if c.isalnum() or c in "_." else "_" for c in text).encode()[:15].ljust(16, b"\0")


def address_of(buffer: bytes | bytearray) -> int:
    """Address of a buffer that outlives the call."""
    if isinstance(buffer, bytes):
        return ctypes.cast(ctypes.c_char_p(buffer), ctypes.c_void_p).value or 0
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


def map_create(
    name: str,
    map_type: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    inner_map_fd: int = 0,
    btf: tuple[int, int, int] = (0, 0, 0),
) -> int:
    """A new map's fd. `btf` is (fd, key type id, value type id), needed for socket storage."""
    attributes = bytearray(
        struct.pack(
            "=IIIIIII16sIIII",
            map_type,
            key_size,
            value_size,
            max_entries,
            flags,
            inner_map_fd,
            0,
            _name(name),
            0,
            *btf,
        )
    )
    return bpf(MAP_CREATE, attributes, f"create map {name}")


def _element(fd: int, key: int, value: int, flags: int = 0) -> bytearray:
    return bytearray(struct.pack("=IIQQQ", fd, 0, key, value, flags))


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """The value, None where there is none."""
    value = bytearray(value_size)
    try:
        bpf(MAP_LOOKUP_ELEM, _element(fd, address_of(key), address_of(value)), "map lookup")
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return bytes(value)


def map_update(fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    bpf(MAP_UPDATE_ELEM, _element(fd, address_of(key), address_of(value), flags), "map update")


def map_delete(fd: int, key: bytes) -> bool:
    """Whether the key was there."""
    try:
        bpf(MAP_DELETE_ELEM, _element(fd, address_of(key), 0), "map delete")
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def map_next_key(fd: int, key: bytes | None, key_size: int) -> bytes | None:
    """The key after `key` (None: the first), None at the end."""
    following = bytearray(key_size)
    try:
        attributes = _element(fd, address_of(key) if key is not None else 0, address_of(following))
        bpf(MAP_GET_NEXT_KEY, attributes, "map walk")
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return bytes(following)


def _batch(fd: int, in_batch: int, out_batch: int, keys: int, values: int, count: int) -> bytearray:
    return bytearray(struct.pack("=QQQQIIQQ", in_batch, out_batch, keys, values, count, fd, 0, 0))


def map_update_batch(fd: int, keys: bytes, values: bytes, count: int) -> None:
    """Add or replace `count` entries; on failure the first ones may be there."""
    bpf(MAP_UPDATE_BATCH, _batch(fd, 0, 0, address_of(keys), address_of(values), count), "batch update")


def map_lookup_batch(
    fd: int, cursor: bytes | None, key_size: int, value_size: int, count: int
) -> tuple[bytes, bytes, int, bytes | None]:
    """(keys, values, how many, cursor of the next call or None at the end)."""
    keys, values = bytearray(count * key_size), bytearray(count * value_size)
    out_cursor = bytearray(max(key_size, 8))
    in_cursor = address_of(cursor) if cursor is not None else 0
    attributes = _batch(fd, in_cursor, address_of(out_cursor), address_of(keys), address_of(values), count)
    try:
        bpf(MAP_LOOKUP_BATCH, attributes, "batch lookup")
        following: bytes | None = bytes(out_cursor)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        following = None
    found = struct.unpack_from("=I", attributes, 32)[0]
    return bytes(keys[: found * key_size]), bytes(values[: found * value_size]), found, following


def obj_pin(fd: int, path: str) -> None:
    text = path.encode() + b"\0"
    bpf(OBJ_PIN, bytearray(struct.pack("=QII", address_of(text), fd, 0)), f"pin {path}")


def obj_get(path: str, flags: int = 0) -> int:
    """An fd of a pinned map, program or link."""
    text = path.encode() + b"\0"
    return bpf(OBJ_GET, bytearray(struct.pack("=QII", address_of(text), 0, flags)), f"open {path}")


def _info(fd: int, size: int, what: str) -> bytes:
    info = bytearray(size)
    bpf(OBJ_GET_INFO_BY_FD, bytearray(struct.pack("=IIQ", fd, size, address_of(info))), what)
    return bytes(info)


class MapInfo(NamedTuple):
    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


def map_info(fd: int) -> MapInfo:
    info = _info(fd, 88, "map info")
    kind, identifier, key, value, entries, flags = struct.unpack_from("=IIIIII", info)
    name = info[24:40].split(b"\0")[0].decode(errors="replace")
    return MapInfo(kind, identifier, key, value, entries, flags, name)


class ProgramInfo(NamedTuple):
    type: int
    id: int
    tag: str
    name: str
    run_time_ns: int
    run_count: int
    verified_instructions: int
    translated_bytes: int


def program_info(fd: int) -> ProgramInfo:
    """Of `struct bpf_prog_info`; what an older kernel does not tell is 0."""
    info = _info(fd, 232, "program info")
    kind, identifier, tag, _jited, translated = struct.unpack_from("=II8sII", info)
    name = info[64:80].split(b"\0")[0].decode(errors="replace")
    run_time, run_count = struct.unpack_from("=QQ", info, 192)
    verified = struct.unpack_from("=I", info, 216)[0]
    return ProgramInfo(kind, identifier, tag.hex(), name, run_time, run_count, verified, translated)


class LinkInfo(NamedTuple):
    type: int
    id: int
    program_id: int
    cgroup_id: int
    attach_type: int


def link_info(fd: int) -> LinkInfo:
    """Of a cgroup link (`struct bpf_link_info`)."""
    kind, identifier, program, _pad, cgroup, attach = struct.unpack_from(
        "=IIIIQI", _info(fd, 40, "link info")
    )
    return LinkInfo(kind, identifier, program, cgroup, attach)


def tc_link_place(fd: int) -> tuple[int, int]:
    """(device, attach type) of a tcx link; the device is 0 where it went away or the link was detached."""
    device, attach = struct.unpack_from("=II", _info(fd, 40, "link info"), 16)
    return device, attach


def link_create(program_fd: int, target_fd: int, attach_type: int) -> int:
    """Attach a program; `target_fd` is a cgroup's, or the index of a network device."""
    attributes = bytearray(struct.pack("=IIII", program_fd, target_fd, attach_type, 0) + bytes(32))
    return bpf(LINK_CREATE, attributes, "attach link")


def iter_link_create(program_fd: int, attach_type: int, map_fd: int) -> int:
    """A link of an iterator over one map."""
    info = struct.pack("=IIII", map_fd, 0, 0, 0)
    attributes = bytearray(
        struct.pack("=IIIIQII", program_fd, 0, attach_type, 0, address_of(info), len(info), 0) + bytes(16)
    )
    return bpf(LINK_CREATE, attributes, "attach iterator")


def iter_create(link_fd: int) -> int:
    """An fd that yields one walk of the iterator."""
    return bpf(ITER_CREATE, bytearray(struct.pack("=II", link_fd, 0)), "create iterator")


def link_update(link_fd: int, program_fd: int) -> None:
    """Swap the program of a link; every hook run sees the old one or the new one."""
    bpf(LINK_UPDATE, bytearray(struct.pack("=IIII", link_fd, program_fd, 0, 0)), "update link")


def program_fd_by_id(identifier: int) -> int:
    return bpf(PROG_GET_FD_BY_ID, bytearray(struct.pack("=III", identifier, 0, 0)), f"program {identifier}")


def program_query(target_fd: int, attach_type: int, effective: bool) -> list[int]:
    """Ids of the programs attached at a cgroup or, if `effective`, run for its sockets."""
    room = 64
    identifiers = bytearray(4 * room)
    flags = BPF_F_QUERY_EFFECTIVE if effective else 0
    attributes = bytearray(
        struct.pack("=IIIIQII", target_fd, attach_type, flags, 0, address_of(identifiers), room, 0)
        + bytes(32)
    )
    bpf(PROG_QUERY, attributes, "query cgroup")
    count = struct.unpack_from("=I", attributes, 24)[0]
    return list(struct.unpack_from(f"={count}I", identifiers))


def btf_load(data: bytes) -> int:
    return bpf(BTF_LOAD, bytearray(struct.pack("=QQIII", address_of(data), 0, len(data), 0, 0)), "load BTF")


class ProgramKind(NamedTuple):
    """`enum bpf_prog_type`, `enum bpf_attach_type`, and the kernel's BTF id that a tracing program is for."""

    type: int
    attach_type: int
    btf_id: int = 0


def program_load(kind: ProgramKind, instructions: bytes, name: str) -> int:
    """Load instructions.

    Raises:
        OSError: refused; the verifier's last words are its notes.
    """
    try:
        return _program_load(kind, instructions, name, log_bytes=0)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EINVAL, errno.E2BIG, errno.EPERM):
            raise
        # Once more for the sake of the verifier's words: a log costs time, so it is not kept otherwise.
        return _program_load(kind, instructions, name, log_bytes=1 << 24)


def _program_load(kind: ProgramKind, instructions: bytes, name: str, log_bytes: int) -> int:
    licence = b"GPL\0"
    words = bytearray(log_bytes or 1)
    head = struct.pack(
        "=IIQQIIQII16sII",
        kind.type,
        len(instructions) // 8,
        address_of(instructions),
        address_of(licence),
        1 if log_bytes else 0,
        log_bytes,
        address_of(words) if log_bytes else 0,
        0,
        0,
        _name(name),
        0,
        kind.attach_type,
    )
    attributes = bytearray(head + struct.pack("=IIQIIQII", 0, 0, 0, 0, 0, 0, 0, kind.btf_id) + bytes(8))
    try:
        return bpf(PROG_LOAD, attributes, f"load program {name}")
    except OSError as error:
        for line in bytes(words).split(b"\0")[0].decode(errors="replace").strip().splitlines()[-4:]:
            error.add_note(line)
        raise


def enable_run_statistics() -> int:
    """Count runs and nanoseconds of all programs until the fd is closed."""
    return bpf(ENABLE_STATS, bytearray(struct.pack("=I", 0)), "enable run statistics")
