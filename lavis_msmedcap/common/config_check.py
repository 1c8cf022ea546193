"""A schema as plain data, and one function that lists everything a configuration gets wrong.

    schema = {"run": Section({"max_epoch": Key(int, required=True, minimum=0), "seed": Key(int)})}
    problems = check({"run": {"max_epohc": 3}}, schema)

Nothing is raised and nothing is printed: each problem is one sentence that names the key, the
value, what was expected and the cure, so that a caller can show all of them at once.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Union

TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
}


@dataclass(frozen=True)
class Key:
    """A single value.

    Attributes:
        kind: Accepted type or types, of ``bool``, ``int``, ``float``, ``str``, ``list``, ``dict``.
        required: Whether the key must be there.
        choices: Accepted values; empty accepts any.
        minimum: Smallest accepted number.
        above: The number must be larger than this.
        below: The number must be smaller than this.
        maximum: Largest accepted number.
        items: What each element of a list must be.
        help: What the key is for, told where it is missing.
    """

    kind: type | tuple[type, ...] = str
    required: bool = False
    choices: Collection[Any] = ()
    minimum: float | None = None
    above: float | None = None
    below: float | None = None
    maximum: float | None = None
    items: Key | None = None
    help: str = ""

    @property
    def kinds(self) -> tuple[type, ...]:
        """``kind`` as a tuple."""
        return self.kind if isinstance(self.kind, tuple) else (self.kind,)


@dataclass(frozen=True)
class Section:
    """A mapping with known keys.

    Attributes:
        keys: What may stand in it.
        required: Whether it must be there.
        open: Unknown keys are let through (a section that another program reads as well).
        help: What the section is for.
    """

    keys: Mapping[str, Node]
    required: bool = False
    open: bool = False
    help: str = ""


@dataclass(frozen=True)
class MapOf:
    """A mapping from names to values of one kind.

    Attributes:
        of: What each value must be.
        names: Accepted names; empty accepts any.
        required: Whether it must be there.
        help: What the mapping is for.
    """

    of: Node
    names: Collection[str] = ()
    required: bool = False
    help: str = ""


@dataclass(frozen=True)
class Nullable:
    """Something that may also be null.

    Attributes:
        of: What it must be otherwise.
    """

    of: Node

    @property
    def required(self) -> bool:
        """Whether the key must be there, null or not."""
        return self.of.required

    @property
    def help(self) -> str:
        """What the key is for."""
        return self.of.help


Node = Union[Key, Section, MapOf, Nullable]
Schema = Mapping[str, Node]


def check(
    config: Mapping[str, Any],
    schema: Schema,
    path: str = "",
    *,
    unknown: bool = True,
    required: bool = True,
) -> list[str]:
    """Lists what a configuration gets wrong.

    Args:
        config: Nested dictionaries and lists, interpolations resolved.
        schema: What the keys may be.
        path: Prefix of the keys in the messages, for example ``run``.
        unknown: Report keys that the schema does not have.
        required: Report required keys that are not there; False suits a partial overlay.

    Returns:
        One sentence per problem, in the order of the configuration; empty if all is well.
    """
    return _Checker(schema, path, unknown, required).section(config, Section(schema), path)


def convert(config: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """Returns a copy in which numbers have the type that the schema asks for.

    Numeric text ("1e-4", as environment variables give it) becomes a number, a whole number becomes
    a float for a float key, and 1e5 an integer for an integer key. What does not fit stays as it
    is, for `check` to report.
    """
    return {
        key: _convert(value, schema[key]) if key in schema else value
        for key, value in config.items()
    }


def known_part(config: Mapping[str, Any], section: Section) -> dict[str, Any]:
    """Returns a copy without the keys that `check` calls unknown."""
    part = {}
    for key, value in config.items():
        node = section.keys.get(key)
        inner = node.of if isinstance(node, Nullable) else node
        if isinstance(inner, Section) and isinstance(value, Mapping):
            part[key] = known_part(value, inner)
        elif node is not None or section.open:
            part[key] = value
    return part


def describe_unknown(what: str, name: str, known: Collection[str]) -> str:
    """Says that a name is unknown, with the nearest known one, or all of them if none is near.

    Args:
        what: What the name is, ``model.arch`` for example.
        name: The unknown name.
        known: All known names.
    """
    near = nearest(name, known)
    cure = f"did you mean {near!r}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
    return f"{what} {name!r} is unknown; {cure}"


def nearest(name: str, known: Collection[str], likeness: float = 0.6) -> str | None:
    """Returns the known name that looks most like ``name``, None if none does.

    Args:
        name: The unknown name.
        known: All known names.
        likeness: How alike they must be, from 0 to 1.
    """
    found = difflib.get_close_matches(str(name), sorted(map(str, known)), n=1, cutoff=likeness)
    return found[0] if found else None


def join_path(path: str, key: object) -> str:
    """Returns ``path.key``, or the key alone at the root."""
    return f"{path}.{key}" if path else str(key)


def show(value: Any) -> str:
    """Writes a value as it looks in YAML, shortened to 80 characters."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class _Checker:
    """Walks a configuration beside its schema."""

    def __init__(self, schema: Schema, path: str, unknown: bool, required: bool) -> None:
        self._homes = _homes(schema, path)
        self._unknown = unknown
        self._required = required

    def node(self, value: Any, node: Node, path: str) -> list[str]:
        if isinstance(node, Nullable):
            return [] if value is None else self.node(value, node.of, path)
        if isinstance(node, Key):
            return _check_key(value, node, path)
        if not isinstance(value, Mapping):
            names = node.keys if isinstance(node, Section) else node.names
            keys = f" with keys among {', '.join(names)}" if names else ""
            return [f"{path} is {show(value)}; expected a mapping{keys}"]
        if isinstance(node, Section):
            return self.section(value, node, path)
        return self.map_of(value, node, path)

    def section(self, config: Mapping[str, Any], section: Section, path: str) -> list[str]:
        problems = []
        for key, value in config.items():
            here = join_path(path, key)
            if key in section.keys:
                problems += self.node(value, section.keys[key], here)
            elif self._unknown and not section.open:
                problems.append(self._unknown_key(str(key), section, path))
        if self._required:
            for key, node in section.keys.items():
                if node.required and key not in config:
                    help_text = f" ({node.help})" if node.help else ""
                    problems.append(f"{join_path(path, key)} is missing{help_text}")
        return problems

    def map_of(self, config: Mapping[str, Any], node: MapOf, path: str) -> list[str]:
        problems = []
        for name, value in config.items():
            if node.names and name not in node.names:
                problems.append(describe_unknown(path, str(name), node.names))
            else:
                problems += self.node(value, node.of, join_path(path, name))
        return problems

    def _unknown_key(self, key: str, section: Section, path: str) -> str:
        """Names the likeliest key: one of the section, else one of that name elsewhere."""
        here = join_path(path, key)
        near = nearest(key, section.keys)
        homes = self._homes.get(key, ())
        if homes:
            return f"{here} is not a known key; did you mean {' or '.join(homes)}?"
        if near:
            return f"{here} is not a known key; did you mean {join_path(path, near)}?"
        keys = ", ".join(sorted(section.keys))
        return f"{here} is not a known key; known keys of {path or 'the configuration'}: {keys}"


def _homes(schema: Schema, path: str) -> dict[str, list[str]]:
    """Returns for each key name the full paths at which the schema has it."""
    homes: dict[str, list[str]] = {}
    for name, full in _walk(schema, path):
        homes.setdefault(name, []).append(full)
    return {name: found for name, found in homes.items() if len(found) <= 2}


def _walk(schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    for name, node in schema.items():
        full = join_path(path, name)
        yield name, full
        inner = node.of if isinstance(node, Nullable) else node
        if isinstance(inner, Section):
            yield from _walk(inner.keys, full)


def _check_key(value: Any, key: Key, path: str) -> list[str]:
    fits, fitted = _fit(value, key.kinds)
    if not fits:
        return [f"{path} is {show(value)}; expected {_expected(key)}{_cure(value, key.kinds)}"]
    if isinstance(value, list) and key.items is not None:
        items = enumerate(value)
        return [line for i, item in items for line in _check_key(item, key.items, f"{path}[{i}]")]
    if key.choices and fitted not in key.choices:
        words = [str(choice) for choice in key.choices if not isinstance(choice, bool)]
        near = nearest(value, words) if isinstance(value, str) else None
        hint = f" (did you mean {near}?)" if near else ""
        return [f"{path} is {show(value)}; expected one of {', '.join(words)}{hint}"]
    if isinstance(fitted, (int, float)) and not isinstance(fitted, bool):
        expected = _out_of_range(fitted, key)
        return [f"{path} is {show(value)}; expected {expected}"] if expected else []
    return []


def _out_of_range(number: float, key: Key) -> str:
    """Says what was expected of a number, nothing if it is in range."""
    if not math.isfinite(number):
        return "a finite number"
    bounds = []
    if key.minimum is not None and number < key.minimum:
        bounds.append(f"at least {_digits(key.minimum)}")
    if key.above is not None and number <= key.above:
        bounds.append(f"more than {_digits(key.above)}")
    if key.below is not None and number >= key.below:
        bounds.append(f"less than {_digits(key.below)}")
    if key.maximum is not None and number > key.maximum:
        bounds.append(f"at most {_digits(key.maximum)}")
    return " and ".join(bounds)


def _digits(bound: float) -> str:
    """Writes whole numbers in full, where ``:g`` would round those above a million."""
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _fit(value: Any, kinds: tuple[type, ...]) -> tuple[bool, Any]:
    """Tells whether a value is of one of the kinds, and returns it as that kind."""
    # bool is an int to Python, but `max_epoch: true` is a mistake
    if isinstance(value, bool):
        return bool in kinds, value
    if any(isinstance(value, kind) for kind in kinds):
        return True, value
    if not isinstance(value, (int, float, str)):
        return False, value
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return False, value
    if int in kinds and number.is_integer():
        return True, int(number)
    if float in kinds:
        return True, number
    return False, value


def _convert(value: Any, node: Node) -> Any:
    if isinstance(node, Nullable):
        return None if value is None else _convert(value, node.of)
    if isinstance(node, Section):
        return convert(value, node.keys) if isinstance(value, Mapping) else value
    if isinstance(node, MapOf):
        if not isinstance(value, Mapping):
            return value
        return {name: _convert(item, node.of) for name, item in value.items()}
    if isinstance(value, list) and node.items is not None:
        return [_convert(item, node.items) for item in value]
    value = _fit(value, node.kinds)[1]
    if node.kinds == (float,) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _expected(key: Key) -> str:
    names = " or ".join(TYPE_NAMES.get(kind, kind.__name__) for kind in key.kinds)
    if key.choices:
        words = [str(choice) for choice in key.choices if not isinstance(choice, bool)]
        return f"one of {', '.join(words)}" if words else names
    if key.items is not None:
        return f"{names} of {_expected(key.items)} each"
    return names


def _cure(value: Any, kinds: tuple[type, ...]) -> str:
    """Adds how to write the value where the mistake is a usual one."""
    if list in kinds and isinstance(value, (str, int, float)):
        # brackets of another kind, as Python and some shells have them
        inner = re.sub(r"^\s*[(<]\s*(.*?)\s*,?\s*[)>]\s*$", r"\1", str(value))
        return f": write [{inner}]"
    if str in kinds and isinstance(value, (int, float)) and not isinstance(value, bool):
        return f": write it in quotes, '{value}'"
    if bool in kinds and isinstance(value, (str, int)):
        return ": write true or false, without quotes"
    return ""
