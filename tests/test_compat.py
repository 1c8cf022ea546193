"""LAVIS beside newer libraries: what is put back, and what stands in for an absent package."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
import transformers
from packaging.version import Version

from lavis_msmedcap import _compat

OLD = Version(transformers.__version__) < Version("4.54")


def test_a_stand_in_lets_names_be_imported_and_refuses_their_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_compat, "OPTIONAL", {"no_such_package": ("part",)})
    monkeypatch.setattr(_compat, "CALLED_AT_IMPORT", {"no_such_package.bridge.set"})
    with _compat.newer_libraries():
        package = importlib.import_module("no_such_package")
        part = importlib.import_module("no_such_package.part")
        assert package.part is part
        assert not isinstance(3, part.Thing)
        assert package.bridge.set("torch") is None
    with pytest.raises(ImportError, match=r"no_such_package\.part\.Thing, but no_such_package is"):
        part.Thing(1)
    with pytest.raises(ImportError, match="requirements"):
        package.deep.er.function()
    # other code still finds the package absent
    assert importlib.util.find_spec("no_such_package") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_package.part")


def test_installed_packages_are_left_alone() -> None:
    stand_ins = {name.partition(".")[0] for name in _compat._stand_ins()}
    installed = {name for name in _compat.OPTIONAL if importlib.util.find_spec(name)}
    assert stand_ins == _compat.OPTIONAL.keys() - installed


def test_a_failing_import_leaves_no_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compat, "OPTIONAL", {"no_such_package": ()})
    with pytest.raises(RuntimeError, match="broken"), _compat.newer_libraries():
        raise RuntimeError("broken")
    assert "no_such_package" not in sys.modules


@pytest.mark.skipif(not OLD, reason="this transformers lacks what is put back")
def test_what_is_put_back_does_what_transformers_4_does() -> None:
    model = SimpleNamespace(dtype=torch.float32)
    original = transformers.PreTrainedModel.invert_attention_mask
    for shape in ((2, 5), (2, 3, 5)):
        mask = torch.randint(0, 2, shape)
        assert torch.equal(_compat._invert_attention_mask(model, mask), original(model, mask))
    assert _compat._get_head_mask(model, None, 3) == [None] * 3
    config = transformers.BertConfig()
    defaults = {name: getattr(config, name) for name in _compat.CONFIG_DEFAULTS}
    assert defaults == _compat.CONFIG_DEFAULTS


@pytest.mark.skipif(not OLD, reason="this transformers lacks what is put back")
def test_nothing_changes_in_the_pinned_installation() -> None:
    touched = (
        transformers.modeling_utils,
        transformers.pytorch_utils,
        transformers.PreTrainedModel,
        transformers.PretrainedConfig,
    )
    before = [dict(vars(owner)) for owner in touched]
    with _compat.newer_libraries():
        pass
    assert [dict(vars(owner)) for owner in touched] == before
