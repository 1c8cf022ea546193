"""What registration changes in LAVIS: first each rule by itself, then all of it in real LAVIS."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lavis_msmedcap import _register
from lavis_msmedcap.common.errors import ConfigError, MSMedCapError

LAVIS_DEFAULT = "/export/home/.cache/lavis"


class WithDefault:
    DEFAULT_MODEL_TYPE = "demo"
    PRETRAINED_MODEL_CONFIG_DICT = {"demo": "demo.yaml", "paper": "paper.yaml"}  # noqa: RUF012


class WithoutDefault:
    PRETRAINED_MODEL_CONFIG_DICT = {"base": "base.yaml", "large": "large.yaml"}  # noqa: RUF012


MODELS: dict[str, Any] = {"msmedcap": WithDefault, "blip_caption": WithoutDefault}


@pytest.mark.parametrize(
    ("current", "environ", "expected"),
    [
        (LAVIS_DEFAULT, {}, "/home/me/.cache/lavis"),
        # LAVIS itself builds the path like this; absolute parts discard what is before them.
        (os.path.join("/site/lavis/..", LAVIS_DEFAULT), {}, "/home/me/.cache/lavis"),  # noqa: PTH118
        (LAVIS_DEFAULT, {"XDG_CACHE_HOME": "/xdg"}, "/xdg/lavis"),
        (LAVIS_DEFAULT, {"XDG_CACHE_HOME": ""}, "/home/me/.cache/lavis"),
        (LAVIS_DEFAULT, {"XDG_CACHE_HOME": "/xdg", "LAVIS_CACHE_ROOT": "~/big"}, "/home/me/big"),
        ("/data/lavis", {"XDG_CACHE_HOME": "/xdg"}, "/data/lavis"),
        ("/data/lavis", {"LAVIS_CACHE_ROOT": "/big"}, "/big"),
    ],
)
def test_cache_root(
    monkeypatch: pytest.MonkeyPatch, current: str, environ: dict[str, str], expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert _register.choose_cache_root(current, environ) == expected


def test_model_type_comes_from_the_caller_or_the_model() -> None:
    assert _register.choose_model_type("msmedcap", None, MODELS) == "demo"
    assert _register.choose_model_type("msmedcap", "paper", MODELS) == "paper"
    assert _register.choose_model_type("blip_caption", "large", MODELS) == "large"


def test_a_model_without_default_type_names_its_types() -> None:
    with pytest.raises(ConfigError, match="'blip_caption' needs a model_type; it has: base, large"):
        _register.choose_model_type("blip_caption", None, MODELS)


def test_an_unknown_type_of_ours_names_the_types() -> None:
    with pytest.raises(ConfigError, match="'msmedcap' has no model_type 'demmo'; it has: demo"):
        _register.choose_model_type("msmedcap", "demmo", MODELS)
    assert _register.choose_model_type("blip_caption", "unlisted", MODELS) == "unlisted"


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        _register.choose_model_type("msmedcp", None, MODELS)
    assert "'msmedcp'; did you mean 'msmedcap'? Registered: blip_caption, msmedcap." in str(
        caught.value
    )
    with pytest.raises(ConfigError) as caught:
        _register.choose_model_type("zzz", "demo", MODELS)
    assert "did you mean" not in str(caught.value)


def test_loaders_are_wrapped_once_and_keep_their_other_arguments() -> None:
    calls = []

    def load_model(name: str, model_type: str, is_eval: bool = False, device: str = "cpu") -> None:
        calls.append((name, model_type, is_eval, device))

    lavis = SimpleNamespace(load_model=load_model, models=SimpleNamespace(load_model=load_model))
    _register._make_model_type_optional(lavis, MODELS)
    wrapped = lavis.models.load_model
    _register._make_model_type_optional(lavis, MODELS)
    assert lavis.models.load_model is wrapped

    lavis.load_model("msmedcap")
    wrapped("msmedcap", is_eval=True, device="cuda")
    wrapped("msmedcap", "paper", True)
    wrapped(name="blip_caption", model_type="base")
    assert calls == [
        ("msmedcap", "demo", False, "cpu"),
        ("msmedcap", "demo", True, "cuda"),
        ("msmedcap", "paper", True, "cpu"),
        ("blip_caption", "base", False, "cpu"),
    ]


def test_one_broken_module_does_not_keep_the_others_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "registering_broken.py").write_text("raise OSError('disk on fire')")
    (tmp_path / "registering_fine.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    failures = _register._import_all(["registering_broken", "no_such_module", "registering_fine"])
    assert failures == [
        "registering_broken: OSError: disk on fire",
        "no_such_module: ModuleNotFoundError: No module named 'no_such_module'",
    ]
    assert "registering_fine" in sys.modules


def test_registration_reports_modules_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    importlib.import_module("lavis")  # the true registration, which other tests need, comes first
    monkeypatch.setattr(_register, "REGISTERING_MODULES", ("no_such_module",))
    with pytest.raises(MSMedCapError, match="cannot be imported:\n  no_such_module: ModuleNot"):
        _register.register()


REPORT = """
import json, lavis_msmedcap, lavis
from lavis.common.registry import registry
from lavis.datasets.builders import dataset_zoo
from lavis.models import load_model, model_zoo
lavis_msmedcap._register.register()
try:
    load_model("msmedcapp")
except lavis_msmedcap.common.errors.ConfigError as error:
    unknown = str(error)
print(json.dumps({
    "models": dict(model_zoo),
    "default_types": {name: getattr(model, "DEFAULT_MODEL_TYPE", None)
                      for name, model in registry.mapping["model_name_mapping"].items()},
    "datasets": dataset_zoo.dataset_zoo, "unknown": unknown,
    "printed": str(model_zoo), "cache": [registry.get_path("cache_root"), lavis.cache_root],
    "names": {kind: sorted(names) for kind, names in registry.mapping.items() if "name" in kind},
}))
"""


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a fresh interpreter sees in the registry of the real LAVIS after registration."""
    home = tmp_path_factory.mktemp("home")
    environ = {**os.environ, "HOME": str(home), "LAVIS_MSMEDCAP_AUTOLOAD": "0"}
    environ.pop("LAVIS_CACHE_ROOT", None)
    environ.pop("XDG_CACHE_HOME", None)
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", REPORT],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**report, "home": home}


def test_real_models_are_in_the_zoo_with_both_scales(registered: dict[str, Any]) -> None:
    for name in ("blip2_dual_qformer", "msmedcap"):
        assert {"demo", "paper"} <= set(registered["models"][name])
        assert registered["default_types"][name] == "demo"
        assert name in registered["printed"]
    assert "blip2_opt" in registered["models"]


def test_real_datasets_are_in_the_zoo(registered: dict[str, Any]) -> None:
    for name in ("coco2014_caption", "roco", "medicat"):
        assert {"default", "demo"} <= set(registered["datasets"][name])
    assert "coco_caption" in registered["datasets"]


def test_real_tasks_and_runner_are_registered(registered: dict[str, Any]) -> None:
    assert {"mixed_semantic_pretrain", "medical_captioning"} <= set(
        registered["names"]["task_name_mapping"]
    )
    assert "runner_msmedcap" in registered["names"]["runner_name_mapping"]


def test_real_loader_names_the_nearest_model(registered: dict[str, Any]) -> None:
    assert "did you mean 'msmedcap'?" in registered["unknown"]


def test_real_cache_moves_to_the_home_folder_and_nothing_is_created(
    registered: dict[str, Any],
) -> None:
    assert registered["cache"] == [str(registered["home"] / ".cache" / "lavis")] * 2
    assert not (registered["home"] / ".cache" / "lavis").exists()
