"""What the entry points do: build in order, train or evaluate, tell problems in one message."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from file_server import FileServer
from omegaconf import OmegaConf

from lavis_msmedcap import cli, evaluate, train
from lavis_msmedcap.common.errors import DataError, SharedDataError
from lavis_msmedcap.run_config import RunConfig, load_run_config
from lavis_msmedcap.run_sources import merge, packaged_configs, read_yaml

PRETRAIN = "projects/msmedcap/pretrain_mixed.yaml"
LAVIS_CONFIG = "lavis/projects/blip2/train/pretrain_stage1.yaml"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped stage-1 configuration, independent of the weights that ship with it."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    encoders = {name: {"encoder": {"weights": None}} for name in ("clip", "sam")}
    model = {"qformer": {"tokenizer": str(folder)}, "branches": encoders}
    config = merge(read_yaml(packaged_configs()[PRETRAIN]), {"model": model})
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def load(path: Path, *options: str) -> dict[str, Any]:
    return load_run_config(str(path), options).to_dict()


# --- running -----------------------------------------------------------------------------------


class Calls:
    """Stands in for task and runner, and writes down in which order they were used."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.config: Any = None
        self.noise: list[float] = []

    def install(self, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
        import lavis.runners  # noqa: F401 - registers
        from lavis.common.registry import registry

        calls = self

        class Task:
            @classmethod
            def setup_task(cls, cfg: Any) -> Task:
                calls.config = cfg
                calls.names.append("task")
                return cls()

            def build_datasets(self, _: Any) -> dict[str, Any]:
                calls.names.append("datasets")
                calls.noise = [random.random(), float(torch.rand(()))]
                return {}

            def build_model(self, _: Any) -> str:
                calls.names.append("model")
                return "model"

        class Runner:
            def __init__(self, **parts: Any) -> None:
                assert parts["cfg"] is calls.config
                assert isinstance(parts["task"], Task)
                assert (parts["model"], parts["datasets"]) == ("model", {})
                assert len(parts["job_id"]) == len("20240102-030405")
                assert len(parts) == 5
                calls.names.append("runner")

            def train(self) -> None:
                calls.names.append("train")

            def evaluate(self, skip_reload: bool) -> None:
                calls.names.append(f"evaluate {skip_reload}")

        Task.__module__ = Runner.__module__ = module
        mapping = registry.mapping
        for name in ("mixed_semantic_pretrain", "image_text_pretrain"):
            monkeypatch.setitem(mapping["task_name_mapping"], name, Task)
        for name in ("runner_msmedcap", "runner_base"):
            monkeypatch.setitem(mapping["runner_name_mapping"], name, Runner)


@pytest.fixture
def own_calls(monkeypatch: pytest.MonkeyPatch, sound: Path) -> Calls:
    load(sound)  # everything is registered before it is replaced
    calls = Calls()
    calls.install(monkeypatch, "lavis_msmedcap.stand_in")
    return calls


def test_train_builds_in_order_and_trains(sound: Path, own_calls: Calls) -> None:
    assert train.main(["--cfg-path", str(sound)]) == 0
    assert own_calls.names == ["task", "datasets", "model", "runner", "train"]
    assert isinstance(own_calls.config, RunConfig)


def test_weights_are_downloaded_before_anything_is_built(
    sound: Path, own_calls: Calls, server: FileServer, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("LAVIS_MSMEDCAP_WEIGHTS", str(tmp_path))
    server.files["/sam.pth"] = b"tensors"
    options = [
        "model.offline=false",
        f"model.branches.sam.encoder.weights={server.url('/sam.pth')}",
    ]
    assert train.main(["--cfg-path", str(sound), "--options", *options]) == 0
    assert [path.read_bytes() for path in tmp_path.glob("sam-*.pth")] == [b"tensors"]
    own_calls.names.clear()
    options[1] = f"model.branches.sam.encoder.weights={server.url('/gone.pth')}"
    assert train.main(["--cfg-path", str(sound), "--options", *options]) == train.EXIT_WRONG_INPUT
    assert own_calls.names == []


def test_evaluate_never_trains(sound: Path, own_calls: Calls) -> None:
    arguments = ["--cfg-path", str(sound), "--options", "run.test_splits=[test]"]
    assert evaluate.main(arguments) == 0
    assert own_calls.names[-1] == "evaluate True"
    assert own_calls.config.run_cfg.evaluate is True
    assert train.main([*arguments, "run.evaluate=true"]) == 0
    assert own_calls.names[-1] == "evaluate True"


def test_the_seed_decides_the_random_numbers(sound: Path, own_calls: Calls) -> None:
    noise = []
    for seed in (1, 1, 2):
        assert train.main(["--cfg-path", str(sound), "--options", f"run.seed={seed}"]) == 0
        noise.append(own_calls.noise)
    assert noise[0] == noise[1] != noise[2]


def test_the_configuration_of_an_own_run_is_left_as_it_is(sound: Path, own_calls: Calls) -> None:
    expected = load(sound)
    assert train.main(["--cfg-path", str(sound)]) == 0
    assert own_calls.config.to_dict() == expected


def test_lavis_own_runner_gets_what_it_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lavis.common.registry import registry

    monkeypatch.chdir(tmp_path)
    calls = Calls()
    calls.install(monkeypatch, "lavis.stand_in")
    for _ in range(2):
        registry.mapping["paths"]["result_dir"] = "of an earlier run"
        assert train.main(["--cfg-path", LAVIS_CONFIG, "--options", "run.device=auto"]) == 0
        assert "result_dir" not in registry.mapping["paths"]
    run = calls.config.run_cfg
    assert (run.distributed, run.rank, run.world_size, run.gpu) == (False, 0, 1, 0)
    assert run.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert run.output_dir == str(tmp_path / "output/BLIP2/Pretrain_stage1")


def test_torchrun_environment_makes_a_process_group(
    sound: Path, own_calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_PORT": str(port)}
    for name, value in {**environment, "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    from lavis_msmedcap.launch import process_group

    with process_group(OmegaConf.create({"device": "cpu"})):
        assert torch.distributed.get_backend() == "gloo"
        assert torch.distributed.get_world_size() == 1
    assert not torch.distributed.is_initialized()


def test_other_ranks_let_the_first_one_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(train.time, "sleep", pauses.append)
    for rank, expected in (("0", []), ("1", [train.PATIENCE])):
        monkeypatch.setenv("RANK", rank)
        assert train.main(["--cfg-path", str(tmp_path)]) == train.EXIT_WRONG_INPUT
        assert pauses == expected


@pytest.mark.parametrize(("kind", "pauses"), [(SharedDataError, 1), (DataError, 0)])
def test_what_all_ranks_found_is_told_by_the_first_one(
    kind: type[DataError], pauses: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail() -> None:
        raise kind("two images cannot be read")

    slept: list[float] = []
    monkeypatch.setattr(train.time, "sleep", slept.append)
    monkeypatch.setenv("RANK", "1")
    assert train.guarded(fail) == train.EXIT_WRONG_INPUT
    assert len(slept) == pauses
    assert capsys.readouterr().err == "error: two images cannot be read\n"


def test_interruption_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert train.guarded(interrupt) == train.EXIT_INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


# --- command line ------------------------------------------------------------------------------


@pytest.mark.parametrize("main", [train.main, evaluate.main])
def test_help_shows_examples_and_where_defaults_live(
    main: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for part in ("--cfg-path", PRETRAIN, "scale=paper", "configs/models/", "torchrun"):
        assert part in text


def test_msmedcap_config_prints_yaml_that_runs(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["config", str(sound), "--options", "run.seed=9"]) == 0
    text = capsys.readouterr().out
    assert "checked: no problems" in text
    assert "scale: demo — " in text
    saved = tmp_path / "saved.yaml"
    saved.write_text(text)
    assert load(saved) == load(sound, "run.seed=9")


def test_msmedcap_config_tells_problems_behind_the_yaml(
    sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(["config", str(sound), "--options", "run.sede=9"])
    captured = capsys.readouterr()
    assert code == train.EXIT_WRONG_INPUT
    assert "sede: 9" in captured.out
    assert "did you mean run.seed?" in captured.err


def test_msmedcap_train_and_evaluate(sound: Path, own_calls: Calls) -> None:
    options = ["--cfg-path", str(sound), "--options", "run.test_splits=[test]"]
    assert cli.main(["train", *options]) == 0
    assert own_calls.names[-1] == "train"
    assert cli.main(["evaluate", *options]) == 0
    assert own_calls.names[-1] == "evaluate True"


def test_msmedcap_phantom_prints_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lavis_msmedcap import phantom

    seen = []

    def ensure(root: Path | None, *, seed: int) -> Path:
        seen.append((root, seed))
        return tmp_path

    monkeypatch.setattr(phantom, "ensure_phantom", ensure)
    assert cli.main(["phantom", "--root", str(tmp_path), "--seed", "3"]) == 0
    assert seen == [(tmp_path, 3)]
    assert capsys.readouterr().out == f"{tmp_path}\n"


def test_msmedcap_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out.startswith("lavis_msmedcap ")


def test_entry_points_answer_without_torch_and_lavis() -> None:
    code = (
        "import sys\n"
        "from lavis_msmedcap import cli, evaluate, train\n"
        "cli.build_parser()\n"
        "sys.exit(int('torch' in sys.modules or 'lavis' in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment())


def test_a_wrong_run_is_one_clean_message(sound: Path) -> None:
    command = [sys.executable, "-m", "lavis_msmedcap.train", "--cfg-path", str(sound)]
    done = subprocess.run(
        [*command, "--options", "run.sede=1"],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
        check=False,
    )
    assert done.returncode == train.EXIT_WRONG_INPUT
    assert done.stdout == ""
    assert done.stderr == (
        f"error: 1 problem in {sound}:\n  1. run.sede is not a known key; did you mean run.seed?\n"
    )


def environment() -> dict[str, str]:
    root = str(Path(train.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
