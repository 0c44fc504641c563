"""The schema of the JSON output is one, and covers every list verb."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import click
from jsonschema import Draft202012Validator

from pyagent.cli.main import VERBS

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "pyagent/view/schema.json").read_text())


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_every_field_says_what_it_means_and_is_always_there() -> None:
    for name, kind in SCHEMA["$defs"].items():
        if name.endswith("List") or name in ("Change", "MapEntry"):
            continue
        assert set(kind["required"]) == set(kind["properties"]), name
        assert all(field.get("description") for field in kind["properties"].values()), name


def test_every_list_verb_has_its_kind_in_the_schema() -> None:
    listing = set()
    for verb in VERBS.values():
        module, _, function = verb.place.partition(":")
        command: click.Command = getattr(import_module(module), function)
        if {"selector", "sort_by"} <= {parameter.name for parameter in command.params}:
            listing.add(command.name)
    kinds = {"services": "Service", "backends": "Backend", "affinity": "Affinity", "maps": "Map"}
    kinds |= {"connections": "Connection", "events": "Event"}
    assert listing <= kinds.keys(), "a list verb without a kind: extend the schema"
    for name in listing:
        assert f"{kinds[str(name)]}List" in SCHEMA["$defs"], name
