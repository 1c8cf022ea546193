"""What README.md and CONTRIBUTING.md say: commands run, snippets run, options and paths exist."""

from __future__ import annotations

import ast
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from config_problems import other_problems
from dicom_files import make_dicom, save
from environments import ROOT, Environment
from PIL import Image

from lavis_msmedcap.models.weight_catalog import CATALOG
from lavis_msmedcap.run_config import resolve_run_config
from lavis_msmedcap.run_sources import packaged_configs

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = ("README.md", "CONTRIBUTING.md")
PRETRAIN = "projects/msmedcap/pretrain_mixed.yaml"
SMALL = ("--options", "run.max_epoch=1", "run.samples_per_epoch=64", "run.max_eval_samples=8")

# --- reading Markdown --------------------------------------------------------------------------


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


# --- commands ----------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where commands run: an environment with the plugin, and a working directory."""

    environment: Environment
    folder: Path

    def output(self, *arguments: str) -> str:
        return self.environment.output(*arguments, cwd=self.folder)


def run_module(place: Place, module: str, config: str) -> None:
    place.output("-m", module, "--cfg-path", config, *SMALL)


def run_torchrun(place: Place, module: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}")
    small = (*SMALL, "run.batch_size_train=8", "run.device=cpu")
    place.output(*launcher, "-m", module, "--cfg-path", PRETRAIN, *small)


def run_phantom_check(place: Place, folder: str) -> None:
    done = place.environment.run(
        "-m", "lavis_msmedcap.evaluation.phantom_check", folder, cwd=place.folder
    )
    assert done.returncode in (0, 1), done.stderr  # 1: a training of seconds misses the targets
    assert len(re.findall(r"target >= \d", done.stdout)) == 4


def run_config_printer(place: Place, config: str) -> None:
    assert "# checked: no problems" in place.output("-m", "lavis_msmedcap.cli", "config", config)


def run_command_line(place: Place, words: str) -> None:
    place.output("-m", "lavis_msmedcap.cli", *words.split())


def run_doctor(place: Place) -> None:
    assert "Python" in place.output("-m", "lavis_msmedcap.cli", "doctor")


def run_conversion(place: Place, words: str) -> None:
    run_command_line(place, words)
    assert (place.folder / words.split()[2]).stat().st_size > 0


def make_own_data(folder: Path) -> None:
    """Makes the table of the README, with six DICOM files and six PNG files."""
    images = folder / "my" / "images"
    if images.is_dir():
        return
    images.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 4096, (12, 96, 120), dtype=np.uint16)
    lines = ["image,caption,patient_id"]
    for number, values in enumerate(pixels):
        name = f"images/{number:03d}.{'dcm' if number < 6 else 'png'}"
        if number < 6:
            save(make_dicom(values), folder / "my" / name)
        else:
            Image.fromarray((values // 16).astype(np.uint8)).save(folder / "my" / name)
        lines.append(f'{name},"Axial CT of the chest, nodule of {number} mm.",p{number}')
    (folder / "my" / "captions.csv").write_text("\n".join(lines) + "\n")


def run_data_check(place: Place, words: str) -> None:
    make_own_data(place.folder)
    output = place.output("-m", "lavis_msmedcap.cli", "data", "check", *words.split())
    assert "images" in output


def run_conversion_of_data(place: Place, words: str) -> None:
    run_command_line(place, f"data convert {words}")
    assert list((place.folder / words.split()[1]).glob("*.tar"))


def run_own_data(place: Place, config: str, options: str) -> None:
    make_own_data(place.folder)
    place.output("-m", "lavis.train", "--cfg-path", config, "--options", *options.split())
    (scores,) = (place.folder / "output" / "msmedcap" / "own_data").glob("*/report.html")
    assert scores.stat().st_size > 0


def check_kill_test(_: Place | None) -> None:
    """Takes a quarter of an hour; tests/runners/test_resume.py has each kind of moment."""
    assert (ROOT / "tools" / "kill_test.py").is_file()


def check_row(_: Place | None, config: str) -> None:
    """tests/test_end_to_end.py runs one."""
    assert config in packaged_configs()


def check_catalog(_: Place | None, names: str) -> None:
    """Downloads nothing: tests/test_weights_command.py does, from a server of its own."""
    assert set(names.split()) <= set(CATALOG)


def check_modern(_: Place | None) -> None:
    """tools/check_versions.sh makes such an environment and runs tests in it."""
    script = (ROOT / "tools" / "check_versions.sh").read_text(encoding="utf-8")
    assert "-r requirements/modern.txt" in script
    assert "--no-deps --ignore-requires-python salesforce-lavis==1.0.2 ." in script


def check_make_target(_: Place | None, target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE), f"no target {target}"


def check_installed_elsewhere(_: Place | None, editable: str) -> None:
    """tests/test_install.py does what the command says, in both ways."""
    tests = (ROOT / "tests" / "test_install.py").read_text(encoding="utf-8")
    assert 'params=["wheel", "editable"]' in tests
    assert '["--editable", str(checkout)]' in tests


def is_only_named(_: Place | None) -> None:
    """The command without its arguments, of which another line shows the whole."""


Handler = Callable[..., None]
CHECKS: dict[str, Handler] = {
    r"make (\w+)": check_make_target,
    r"pip install( -e)? \.": check_installed_elsewhere,
    r"pip install -r requirements/modern\.txt": check_modern,
    r"pip install --no-deps .* salesforce-lavis==1\.0\.2 \.": check_modern,
    r"msmedcap weights get (.*) --to weights": check_catalog,
    r"python tools/kill_test\.py": check_kill_test,
    r"python -m lavis\.train --cfg-path (\S+/table1/\S+\.yaml)": check_row,
    r"msmedcap (?:memory|weights get)|pip install": is_only_named,
    r"(?:python|torchrun) -m lavis\.(?:train|evaluate)": is_only_named,
}
RUNS: dict[str, Handler] = {
    r"python -m (lavis\.(?:train|evaluate)) --cfg-path (\S+\.yaml)": run_module,
    r"torchrun --nproc_per_node=\d+ -m (lavis\.train) --cfg-path \.\.\.": run_torchrun,
    r"msmedcap config (\S+)": run_config_printer,
    r"msmedcap ((?:weights list|memory --cfg-path).*)": run_command_line,
    r"msmedcap doctor": run_doctor,
    r"msmedcap data check (.*)": run_data_check,
    r"msmedcap data convert (.*)": run_conversion_of_data,
    r"python -m lavis\.train --cfg-path (\S+/own_data\.yaml) --options (.*)": run_own_data,
    r"msmedcap (convert-checkpoint .*)": run_conversion,
    r"python -m lavis_msmedcap\.evaluation\.phantom_check (\S+)": run_phantom_check,
}


def match(command: str, handlers: dict[str, Handler]) -> tuple[Handler, tuple[Any, ...]] | None:
    for pattern, handler in handlers.items():
        found = re.fullmatch(pattern, command)
        if found:
            return handler, found.groups()
    return None


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_is_checked_or_run(document: str) -> None:
    commands = commands_of((ROOT / document).read_text(encoding="utf-8"))
    assert commands
    unknown = [command for command in commands if match(command, {**CHECKS, **RUNS}) is None]
    assert unknown == [], f"give it a handler in {Path(__file__).name}"
    for command in commands:
        found = match(command, CHECKS)
        if found:
            handler, arguments = found
            handler(None, *arguments)


@pytest.mark.slow
@pytest.mark.journey
def test_the_commands_run_one_after_the_other(plugged_in: Environment, tmp_path: Path) -> None:
    place = Place(plugged_in, tmp_path)
    used = set()
    for command in commands_of(README):
        found = None if match(command, CHECKS) else match(command, RUNS)
        if found:
            handler, arguments = found
            handler(place, *arguments)
            used.add(handler)
    assert used == set(RUNS.values())
    runs = tmp_path / "output" / "msmedcap"
    names = ["caption", "evaluate", "own_data", "pretrain_mixed"]
    assert sorted(path.name for path in runs.iterdir()) == names
    (report,) = runs.glob("evaluate/*/report.html")
    (table,) = runs.glob("caption/*/metrics.csv")
    assert report.stat().st_size > 0
    assert table.stat().st_size > 0


# --- snippets ----------------------------------------------------------------------------------

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


def test_the_yaml_block_is_all_that_a_run_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = (block.text for block in blocks_of(README) if block.language == "yaml")
    make_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    caption = yaml.safe_load(packaged_configs()["projects/msmedcap/caption.yaml"].read_text())
    caption["model"]["stage1"] = None
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**caption, **yaml.safe_load(block)}))
    assert resolve_run_config("own.yaml")[1] == []


# --- options -----------------------------------------------------------------------------------

TABLE_OPTIONS = [
    words
    for line in README.splitlines()
    if line.startswith("|")
    for words in re.findall(r"`--options ([^`]+)`", line)
]
OTHER_OPTIONS = [
    words for words in re.findall(r"`--options ([^`]+)`", README) if words not in TABLE_OPTIONS
]


# a row of Table 1 has its branches fixed, own data want a table
SINGLE_RUNS = sorted(
    name for name in packaged_configs() if "/table1/" not in name and "own_data" not in name
)


def problems_with(config: str, words: str) -> list[str]:
    return other_problems(resolve_run_config(config, words.split())[1])


@pytest.mark.parametrize("words", TABLE_OPTIONS)
@pytest.mark.parametrize("config", SINGLE_RUNS)
def test_options_of_the_table_suit_every_run(
    config: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems_with(config, words) == []


@pytest.mark.parametrize("words", OTHER_OPTIONS)
def test_other_options_suit_some_run(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = {config: resolve_run_config(config, words.split())[1] for config in SINGLE_RUNS}
    assert [] in told.values(), told


def test_there_are_options() -> None:
    assert len(TABLE_OPTIONS) >= 4
    assert len(OTHER_OPTIONS) >= 1


# --- paths -------------------------------------------------------------------------------------

SUFFIXES = ("md", "py", "yaml", "toml", "cff", "csv", "html", "json", "safetensors")
PATH = re.compile(rf"[\w.-]+(/[\w.-]+)*/|[\w.-]+(/[\w.-]+)+|[\w-]+\.({'|'.join(SUFFIXES)})")
MADE_BY_RUNS = {
    "metrics.csv",
    "report.html",
    "weights/",
}  # test_the_commands_run_one_after_the_other


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    paths = [code for code in inline_code(text) if PATH.fullmatch(code)]
    paths = [path for path in paths if path not in MADE_BY_RUNS]
    assert len(paths) >= 3
    roots = (ROOT, ROOT / "lavis_msmedcap")
    absent = [p for p in paths if not any(places_of(root, p) for root in roots)]
    assert absent == []


def places_of(root: Path, path: str) -> list[Path]:
    """Finds a file, a folder, or a module written without its suffix."""
    return [place for place in (root / path, root / f"{path}.py") if place.exists()]


def test_the_map_of_the_house_is_complete() -> None:
    (text,) = (block.text for block in blocks_of(README) if "lavis_msmedcap/\n" in block.text)
    shown = set()
    for line in text.splitlines():
        folders = re.split(r"\s{2,}", line.strip())[0].split()
        root = Path("lavis_msmedcap") if line.startswith(" ") else Path()
        shown |= {(root / folder).as_posix() for folder in folders}
    assert [folder for folder in sorted(shown) if not (ROOT / folder).is_dir()] == []
    rooms = {path.parent for path in (ROOT / "lavis_msmedcap").glob("*/__init__.py")}
    assert {path.relative_to(ROOT).as_posix() for path in rooms} <= shown
