"""The Python snippets of README.md, run as they stand."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from environments import Environment
from PIL import Image
from readme import README, blocks_of

SNIPPETS = [block.text for block in blocks_of(README) if block.language == "python"]
PICTURE = "from PIL import Image\nraw_image = Image.open('image.png').convert('RGB')\n"
# executes a file, and prints the values of its expression statements as one line of JSON
SHOW_VALUES = """
import ast, json, sys
values, names = [], {}
for node in ast.parse(open(sys.argv[1]).read()).body:
    if isinstance(node, ast.Expr):
        values.append(eval(compile(ast.Expression(node.value), "snippet", "eval"), names))
    else:
        exec(compile(ast.Module([node], []), "snippet", "exec"), names)
print(json.dumps(values))
"""


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_python_snippet_gives_captions(
    number: int, plugged_in: Environment, tmp_path: Path
) -> None:
    snippet = SNIPPETS[number]
    assert "lavis_msmedcap" not in snippet
    Image.effect_noise((90, 70), 60).save(tmp_path / "image.png")
    stored = {n.id for n in names_in(snippet) if isinstance(n.ctx, ast.Store)}
    opening = "" if "raw_image" in stored else PICTURE
    (tmp_path / "snippet.py").write_text(opening + snippet, encoding="utf-8")
    output = plugged_in.output("-c", SHOW_VALUES, "snippet.py", cwd=tmp_path)
    values = json.loads(output.splitlines()[-1])
    assert len(values) == snippet.count("model.generate(")
    assert all(captions and all(map(str.strip, captions)) for captions in values)


def names_in(source: str) -> Iterator[ast.Name]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 2
    languages = {block.language for block in blocks_of(README)}
    assert languages <= {"bash", "python", "yaml", ""}, "another language needs another test"
