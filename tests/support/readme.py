"""README.md and CONTRIBUTING.md read: blocks, inline code and shell commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from environments import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = ("README.md", "CONTRIBUTING.md")


class Block(NamedTuple):
    """A fenced block: ``language`` may be empty."""

    language: str
    text: str


FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND_WORDS = ("make", "pip", "python", "torchrun", "msmedcap")


def blocks_of(text: str) -> list[Block]:
    return [Block(*match.groups()) for match in FENCE.finditer(text)]


def inline_code(text: str) -> list[str]:
    """Returns what stands in single backticks, the targets of links included."""
    prose = re.sub(r"\[[^\]]*\]\((?!https?:)([^)]*)\)", r"`\1`", FENCE.sub("", text))
    return re.findall(r"`([^`\n]+)`", prose)


def commands_of(text: str) -> list[str]:
    """Returns every shell command, of bash blocks and of prose, in the order of the text."""
    shell = [block.text for block in blocks_of(text) if block.language == "bash"]
    found = list(commands_in_shell("\n".join(shell)))
    found += [code for code in inline_code(text) if code.split()[0] in COMMAND_WORDS]
    return list(dict.fromkeys(found))


def commands_in_shell(text: str) -> Iterator[str]:
    for line in text.splitlines():
        command, _, comment = line.partition("#")
        alternative = comment.strip().removeprefix("or: ")
        yield from filter(None, [command.strip()])
        if alternative != comment.strip():
            yield alternative
