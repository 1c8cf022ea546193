"""The words behind ``--options``, read strictly.

LAVIS accepts ``key=value`` and ``key value`` and decides from the first word alone, so that a mixed
list drops settings without a word. Here a list is of one form throughout, or it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

KEY = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*")
ASSIGNMENT = re.compile(r"[A-Za-z_][\w.\[\]-]*=")


def parse_options(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Turns ``--options`` into nested dictionaries.

    Both LAVIS forms are understood, ``run.seed=1 run.max_epoch=7`` and ``run.seed 1 run.max_epoch
    7``, never mixed. Values are read as YAML: ``null``, ``[train, val]``, ``{roco: 2}``, 1e-4. The
    last value of a key wins.

    Args:
        words: What the shell passed behind all ``--options`` together.

    Returns:
        The options by key, and one sentence per word that could not be used.
    """
    pairs, problems = _pairs(list(words))
    tree: dict[str, Any] = {}
    for key, raw in pairs:
        problem = _key_problem(key)
        if problem is None:
            value, problem = _parse_value(key, raw)
        if problem is None:
            problem = _insert(tree, key, value)
        if problem is not None:
            problems.append(f"--options {problem}")
    return tree, problems


def _pairs(words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Splits words into keys and raw values by the form that the first one shows."""
    if not words:
        return [], []
    if "=" in words:
        return [], ["--options have a '=' on its own; write key=value without spaces"]
    if "=" in words[0]:
        return _assignments(words)
    return _alternating(words)


def _assignments(words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    pairs, problems = [], []
    rest = iter(words)
    for word in rest:
        if "=" in word:
            key, _, raw = word.partition("=")
            pairs.append((key, raw))
        elif KEY.fullmatch(word) and "." in word:
            value = next(rest, "VALUE")
            value = "VALUE" if "=" in value else value
            problems.append(
                f"--options mix 'key=value' and 'key value'; write {word}={value} as the others"
            )
        else:
            problems.append(
                f"--options have {word!r} between 'key=value' words; if it belongs to the value "
                f"before it, put that in quotes: '{pairs[-1][0]}={pairs[-1][1]} {word}'"
            )
    return pairs, problems


def _alternating(words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    mixed = [word for word in words if ASSIGNMENT.match(word) and KEY.match(word)]
    mixed = [word for word in mixed if "." in word.partition("=")[0] or word.startswith("scale=")]
    if mixed:
        return [], [
            f"--options mix 'key value' and 'key=value' ({mixed[0]!r} behind {words[0]!r}); "
            "write all of them as key=value"
        ]
    if len(words) % 2:
        return [], [
            f"--options have {len(words)} words, so that {words[-1]!r} has no value; "
            "write key=value, or 'key value' pairs"
        ]
    return list(zip(words[0::2], words[1::2])), []


def _key_problem(key: str) -> str | None:
    if KEY.fullmatch(key):
        return None
    named = re.sub(r"\.?\[[\"']?([A-Za-z_][\w-]*)[\"']?\]", r".\1", key)  # Python's way of a key
    if KEY.fullmatch(named):
        return f"{key}: names are joined by dots, without brackets; write {named}"
    if re.search(r"[\[\]]|\.\d+(\.|$)", key):
        whole = re.split(r"\.?\[|\.\d", key)[0]
        return f"{key}: a list is replaced as a whole, for example {whole}=[a, b]"
    return f"{key or '(nothing)'}: not a key; expected names with dots between, as in run.max_epoch"


def _parse_value(key: str, raw: str) -> tuple[Any, str | None]:
    """Reads a value as OmegaConf reads a dot list, and questions what was hardly meant."""
    text = raw.strip()
    if not text:
        return None, f"{key} has no value; write {key}=VALUE, or {key}=null if nothing is meant"
    try:
        parsed = OmegaConf.from_dotlist([f"value={raw}"])
        value = OmegaConf.to_container(parsed, resolve=False)["value"]
    except (YAMLError, OmegaConfBaseException) as error:
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        return None, f"{key}={raw}: not readable as YAML ({reason}); put the value in quotes"
    if isinstance(value, dict) and not text.startswith("{"):
        return None, (
            f"{key}={raw}: YAML reads this as a mapping because of ': '; for text write "
            f"'{key}=\"{text}\"', for a mapping '{key}={{{text}}}'"
        )
    name = next(_colon_names(value), None)
    if name is not None:
        return None, f"{key}={raw}: no value behind {name!r}; YAML wants a space after the colon"
    return value, None


def _colon_names(value: Any) -> Iterator[str]:
    """Finds names such as 'roco:9', which `{roco:9}` without a space makes."""
    if isinstance(value, dict):
        for name, item in value.items():
            if item is None and ":" in str(name):
                yield str(name)
            yield from _colon_names(item)


def _insert(tree: dict[str, Any], key: str, value: Any) -> str | None:
    *parents, last = key.split(".")
    for depth, name in enumerate(parents, 1):
        inner = tree.setdefault(name, {})
        if inner is None:  # a branch dropped by an earlier word and set again by this one
            inner = tree[name] = {}
        if not isinstance(inner, dict):
            above = ".".join(parents[:depth])
            return f"{key}: {above} was set to {inner!r} before, so it has no keys; keep one"
        tree = inner
    tree[last] = value
    return None


def idle_options(
    options: Mapping[str, Any], config: Mapping[str, Any], path: str = ""
) -> list[str]:
    """Finds options that are an empty mapping where there is a full one, which changes nothing.

    ``datasets.roco={}`` is none of them: it asks for a dataset with its packaged defaults.

    Args:
        options: The options by key.
        config: What they, all else below them, come to.
        path: Of both, "" for the whole.
    """
    problems = []
    for key, value in options.items():
        here = f"{path}.{key}" if path else str(key)
        below = config.get(key)
        if not isinstance(value, Mapping) or not isinstance(below, Mapping):
            continue
        if value:
            problems += idle_options(value, below, here)
        elif below and path != "datasets":
            name = next(iter(below))
            problems.append(
                f"--options {here} is {{}}, which changes nothing: mappings are merged, and it has "
                f"{', '.join(map(str, below))}; name the keys to change, for example "
                f"{here}.{name}=null"
            )
    return problems
