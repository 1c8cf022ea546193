"""Lets LAVIS 1.0.2 be imported and run beside libraries newer than those it pins.

In the installation that LAVIS pins (transformers 4.26) nothing here changes anything: a name is put
back only where a newer library has dropped it, a stand-in is made only for a package that is not
installed. Measured limits: LAVIS imports unaided up to transformers 4.53.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

# Packages that LAVIS imports for parts that this package does not use, and their submodules.
OPTIONAL = {
    "cv2": (),
    "decord": (),
    "fairscale": ("nn", "nn.checkpoint", "nn.checkpoint.checkpoint_activations"),
    "ftfy": (),
    "pandas": (),
    "skimage": (),
    "spacy": (),
}
CALLED_AT_IMPORT = {"decord.bridge.set_bridge"}  # LAVIS calls it once while it is imported

# Names that LAVIS takes from transformers.modeling_utils; they moved to transformers.pytorch_utils
# in 4.54, and 5 dropped the two that serve only the pruning of attention heads.
MOVED = ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer")
# Modules and names that 5 dropped and that LAVIS' T5 imports (device maps, head pruning).
DROPPED = {
    "transformers.pytorch_utils": ("find_pruneable_heads_and_indices", "prune_linear_layer"),
    "transformers.utils.model_parallel_utils": ("assert_device_map", "get_device_map"),
}
# Settings of every configuration that 5 no longer has, with the values they had.
CONFIG_DEFAULTS = {
    "add_cross_attention": False,
    "is_decoder": False,
    "position_embedding_type": "absolute",
    "pruned_heads": {},
    "tie_word_embeddings": True,
    "use_cache": True,
}


@contextmanager
def newer_libraries() -> Iterator[None]:
    """Puts back what LAVIS expects, for the time of its import where that is enough.

    Stand-ins of absent packages leave ``sys.modules`` afterwards, so that other code still finds
    these packages absent. LAVIS keeps its references, which raise an ImportError on use.
    """
    if importlib.util.find_spec("transformers"):
        _restore_moved_names()
        _restore_model_methods()
    stand_ins = _stand_ins()
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _restore_moved_names() -> None:
    for module_name, names in DROPPED.items():
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            module = sys.modules[module_name] = ModuleType(module_name)
        for name in names:
            if not hasattr(module, name):
                setattr(module, name, _absent(f"{module_name}.{name}", "transformers 4.53"))
    from transformers import modeling_utils, pytorch_utils

    for name in MOVED:
        if not hasattr(modeling_utils, name):
            setattr(modeling_utils, name, getattr(pytorch_utils, name))


def _restore_model_methods() -> None:
    """Gives models and configurations back what 5 took away; LAVIS' Q-Former and OPT use it."""
    from transformers import BertConfig, PretrainedConfig, PreTrainedModel

    for name, method in (
        ("get_head_mask", _get_head_mask),
        ("invert_attention_mask", _invert_attention_mask),
    ):
        if not hasattr(PreTrainedModel, name):
            setattr(PreTrainedModel, name, method)
    bert = BertConfig()  # transformers 4 sets them on the instance
    for name, value in CONFIG_DEFAULTS.items():
        if not hasattr(bert, name):
            setattr(PretrainedConfig, name, value)
    # 5 makes this table of tied weights in `post_init`; LAVIS' classes call only `init_weights`,
    # which reads it. Their own weights are tied by whoever builds them.
    if hasattr(PreTrainedModel, "get_expanded_tied_weights_keys"):
        PreTrainedModel.all_tied_weights_keys = {}


def _get_head_mask(_: Any, head_mask: Any, num_hidden_layers: int) -> list[None]:
    """Answers as transformers 4 does when no head is masked (the first argument is the model)."""
    if head_mask is not None:
        raise ImportError("masking of attention heads needs transformers before 5")
    return [None] * num_hidden_layers


def _invert_attention_mask(model: Any, mask: Any) -> Any:
    """Turns a mask of ones and zeros into one to add to scores, as transformers 4 does."""
    import torch

    mask = mask[:, None, :, :] if mask.dim() == 3 else mask[:, None, None, :]
    return (1.0 - mask.to(dtype=model.dtype)) * torch.finfo(model.dtype).min


# --- absent packages ---------------------------------------------------------------------------


def _stand_ins() -> dict[str, ModuleType]:
    """Returns stand-ins for the packages of `OPTIONAL` that are not installed, by module name."""
    modules: dict[str, ModuleType] = {}
    for package, submodules in OPTIONAL.items():
        if package in sys.modules or importlib.util.find_spec(package):
            continue
        modules[package] = _StandIn(package)
        for name in submodules:
            module = modules[f"{package}.{name}"] = _StandIn(f"{package}.{name}")
            parent, _, last = module.__name__.rpartition(".")
            setattr(modules[parent], last, module)
    return modules


class _StandIn(ModuleType):
    """A module of an absent package: every name can be taken from it, none can be used."""

    __path__: list[str] = []  # noqa: RUF012 - lets submodules be imported

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _absent(f"{self.__name__}.{name}", self.__name__.partition(".")[0])


class _AbsentType(type):
    """Type of the classes that stand for what an absent package holds."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _absent(f"{cls.__qualname__}.{name}", cls.__module__)

    def __call__(cls, *_: Any, **__: Any) -> Any:
        if cls.__qualname__ not in CALLED_AT_IMPORT:
            raise ImportError(
                f"LAVIS wants {cls.__qualname__}, but {cls.__module__} is not installed here "
                "(see requirements/modern.txt)"
            )


def _absent(name: str, package: str) -> type:
    """Makes a class (so that it may stand in ``isinstance``) that cannot be called."""
    return _AbsentType(name.rpartition(".")[2], (), {"__qualname__": name, "__module__": package})
