"""Every command of README.md and CONTRIBUTING.md is checked, or run in a throw-away folder."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from environments import ROOT, Environment
from own_data import make_own_data
from readme import DOCUMENTS, README, commands_of

from lavis_msmedcap.models.weight_catalog import CATALOG
from lavis_msmedcap.run_sources import packaged_configs

PRETRAIN = "projects/msmedcap/pretrain_mixed.yaml"
SMALL = ("--options", "run.max_epoch=1", "run.samples_per_epoch=64", "run.max_eval_samples=8")


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
