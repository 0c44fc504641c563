"""The repository against itself: README and command line, locks and pyproject.toml, names, links, folders."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import tomllib
import warnings
from importlib import import_module
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]

FOLDERS = {
    ".ci",
    "LICENSES",
    "bench",
    "bpf",
    "build-aux",
    "deploy",
    "docs",
    "pyagent",
    "tests",
    "typings",
    "vagrant",
}
"""All that may stand at the top; what is not there yet may come."""

PACKAGES = {"agent", "cli", "cluster", "datapath", "demo", "desired", "kernel", "model", "view"}

MODULE_LINES = 300
MODULE_LINES_LIMIT = 500


def tracked_files() -> list[Path]:
    """Files under version control that are there, relative to the root."""
    listing = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],  # the checkout may belong to somebody else
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [Path(name) for name in listing.split("\0") if name and (ROOT / name).is_file()]


FILES = tracked_files()
PYTHON_FILES = [file for file in FILES if file.suffix == ".py"]
MARKDOWN_FILES = [file for file in FILES if file.suffix == ".md"]


def text_of(file: Path) -> str:
    return (ROOT / file).read_text(encoding="utf-8", errors="replace")


def hits(pattern: str, files: list[Path]) -> list[str]:
    expression = re.compile(pattern)
    return [
        f"{file}:{number}: {line.strip()[:120]}"
        for file in files
        for number, line in enumerate(text_of(file).splitlines(), start=1)
        if expression.search(line)
    ]


def test_no_file_names_the_place_where_it_was_written() -> None:
    found = hits(rf"(?<![\w./])(/home/\w+|/Users/\w+|/root/\w+|{re.escape(str(ROOT))}\b)", FILES)
    assert not found, "\n".join(found)


def test_no_file_names_the_host_of_a_package_registry() -> None:
    """A lock or a script that names one cannot be used behind a mirror."""
    hosts = [
        "py" + "pi.org",
        "pythonhosted" + ".org",
        "deb" + ".debian.org",
        "registry" + ".npmjs",
        "--index" + "-url http",
    ]
    found = hits("|".join(map(re.escape, hosts)), FILES)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("lock", sorted(file.name for file in FILES if file.suffix == ".lock"))
def test_a_lock_has_a_hash_for_each_package_and_no_address(lock: str) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", text_of(Path(lock)))[1:]
    assert entries
    assert not [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry]
    assert "://" not in text_of(Path(lock))


def locked_versions(lock: str) -> dict[str, Version]:
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text_of(Path(lock)), flags=re.MULTILINE)
    return {normal_name(name): Version(version) for name, version in pins}


def normal_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_locks_hold_what_pyproject_asks_for() -> None:
    pyproject = tomllib.loads(text_of(Path("pyproject.toml")))
    project = pyproject["project"]
    asked = {
        "requirements.lock": project["dependencies"],
        "requirements-dev.lock": [*project["dependencies"], *project["optional-dependencies"]["dev"]],
        "requirements-build.lock": pyproject["build-system"]["requires"],
        "requirements-fuzz.lock": [*project["dependencies"], *project["optional-dependencies"]["fuzz"]],
    }
    wrong = [
        f"{lock}: {line}, locked {locked_versions(lock).get(normal_name(Requirement(line).name))}"
        for lock, lines in asked.items()
        for line in lines
        if not Requirement(line).specifier.contains(
            locked_versions(lock).get(normal_name(Requirement(line).name), Version("0.dev0"))
        )
    ]
    assert not wrong, "run `make lock`:\n" + "\n".join(wrong)


def test_the_locks_agree_with_each_other() -> None:
    versions: dict[str, set[Version]] = {}
    for lock in (f"requirements{part}.lock" for part in ("", "-dev", "-build", "-fuzz")):
        for name, version in locked_versions(lock).items():
            versions.setdefault(name, set()).add(version)
    assert not {name: found for name, found in versions.items() if len(found) > 1}


def test_the_table_of_libraries_names_each_with_its_locked_version() -> None:
    table = text_of(Path("docs/decisions/0001-libraries.md"))
    project = tomllib.loads(text_of(Path("pyproject.toml")))["project"]
    locked = locked_versions("requirements-dev.lock") | locked_versions("requirements-fuzz.lock")
    rows = {
        normal_name(name): version
        for name, version in re.findall(r"^\| `([^`]+)` \| (\S+) \|", table, re.MULTILINE)
    }
    asked = [line for group in project["optional-dependencies"].values() for line in group]
    asked += project["dependencies"]
    names = {normal_name(Requirement(line).name) for line in asked}
    missing = {name: str(locked[name]) for name in names if rows.get(name) != str(locked[name])}
    assert not missing, f"docs/decisions/0001-libraries.md lacks or has another version of: {missing}"


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(file)
        for file in PYTHON_FILES
        if text_of(file).strip() and not (ast.get_docstring(ast.parse(text_of(file))) or "").strip()
    ]
    assert not silent


def test_no_module_outgrows_a_reader() -> None:
    lines = {file: text_of(file).count("\n") for file in FILES if file.suffix in {".py", ".c", ".h"}}
    long = {str(file): count for file, count in lines.items() if count > MODULE_LINES}
    if long:
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # a place to look, not yet a failure
            warnings.warn(f"over {MODULE_LINES} lines: {long}", stacklevel=1)
    assert not {file: count for file, count in long.items() if count > MODULE_LINES_LIMIT}


def test_the_top_level_is_what_the_architecture_says() -> None:
    assert {file.parts[0] for file in FILES if len(file.parts) > 1} <= FOLDERS
    packages = {file.parts[1] for file in FILES if file.parts[0] == "pyagent" and len(file.parts) > 2}
    assert packages == PACKAGES


def test_no_name_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "manager", "common", "misc", "handler"}
    assert not [str(file) for file in PYTHON_FILES if drawers & set(file.stem.split("_"))]


def test_every_bpf_file_names_its_licence_first() -> None:
    sources = [file for file in FILES if file.parts[0] == "bpf" and file.suffix in {".c", ".h"}]
    assert sources
    assert not [
        str(file)
        for file in sources
        if "SPDX-License-Identifier: GPL-2.0" not in text_of(file).split("\n")[0]
    ]


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{file}: {target}"
        for file in MARKDOWN_FILES
        for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text_of(file))
        if "://" not in target and not (ROOT / file.parent / target).exists()
    ]
    assert not broken, "\n".join(broken)


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of(Path("Makefile")), flags=re.MULTILINE))
    named = {
        target
        for file in MARKDOWN_FILES
        for target in re.findall(r"(?:^    |`)make ([a-z-]+)", text_of(file), flags=re.MULTILINE)
    }
    assert {"demo", "test"} <= named
    assert named <= targets


def section(title: str) -> str:
    """The README's text under a heading, to the next heading."""
    _, _, rest = text_of(Path("README.md")).partition(f"\n### {title}\n")
    assert rest, f"README.md has no section {title!r}"
    return re.split(r"\n#+ ", rest)[0]


def command_line() -> click.Group:
    main = import_module("pyagent.cli.main")
    groups = {id(value): value for value in vars(main).values() if isinstance(value, click.Group)}
    assert len(groups) == 1, f"pyagent.cli.main holds {len(groups)} click groups, not the one command line"
    return next(iter(groups.values()))


def verb(name: str) -> click.Command:
    group = command_line()
    command = group.get_command(click.Context(group), name)
    assert command is not None, f"the command line lists `{name}` and cannot load it"
    return command


def long_flags(command: click.Command) -> set[str]:
    return {
        flag
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for flag in parameter.opts
        if flag.startswith("--") and flag != "--help"
    }


def test_the_readme_lists_just_the_verbs_that_exist() -> None:
    documented = set(re.findall(r"^\| `kubesock ([a-z-]+)` \|", section("Verbs"), flags=re.MULTILINE))
    group = command_line()
    context = click.Context(group)
    existing = {name for name in group.list_commands(context) if not verb(name).hidden}
    assert documented == existing


def test_the_readme_lists_flags_of_run_that_exist() -> None:
    documented = set(re.findall(r"^\| `(--[a-z-]+)", section("Flags of `kubesock run`"), flags=re.MULTILINE))
    assert "--manifests" in documented
    assert documented <= long_flags(verb("run"))


def test_the_page_of_flags_is_what_the_command_line_is_made_from() -> None:
    made = runpy.run_path(str(ROOT / "build-aux" / "flags_document.py"))["document"]()
    assert text_of(Path("docs/flags.md")) == made, "run `make flags`"


def test_the_flags_of_list_verbs_in_the_readme_exist_on_each() -> None:
    (sentence,) = re.findall(r"List verbs take (.*?)\. They", section("Verbs"), flags=re.DOTALL)
    documented = set(re.findall(r"`(--?[A-Za-z-]+)", sentence))
    assert "-o" in documented
    for name in ("services", "backends"):
        existing = {flag for option in verb(name).params for flag in option.opts}
        assert documented <= existing, name
