"""What happens when LAVIS has been imported: our classes enter its registry, and it is patched.

All patches of LAVIS 1.0.2 are in this file, each with its reason. Everything here may run twice.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lavis_msmedcap.common.errors import ConfigError, MSMedCapError

REGISTERING_MODULES = (
    "lavis_msmedcap.models.blip2_dual_qformer",
    "lavis_msmedcap.models.image_text_matching",
    "lavis_msmedcap.models.msmedcap",
    "lavis_msmedcap.processors.image_processors",
    "lavis_msmedcap.processors.caption_processors",
    "lavis_msmedcap.datasets.builders",
    "lavis_msmedcap.tasks.mixed_semantic_pretrain",
    "lavis_msmedcap.tasks.medical_captioning",
    "lavis_msmedcap.runners.runner_msmedcap",
)
LAVIS_DEFAULT_CACHE = "/export/home/.cache/lavis"
_PATCHED = "_patched_by_lavis_msmedcap"


def register() -> None:
    """Registers the classes of this package with LAVIS and patches LAVIS.

    Raises:
        MSMedCapError: Some modules cannot be imported; the others are registered all the same.
    """
    import lavis
    from lavis.common.registry import registry

    _move_cache(lavis, registry.mapping["paths"])
    _make_model_type_optional(lavis, registry.mapping["model_name_mapping"])
    failures = _import_all(REGISTERING_MODULES)  # only registration
    _refresh_zoos()
    if failures:
        raise MSMedCapError("\n  ".join(["these modules cannot be imported:", *failures]))


def choose_cache_root(current: str, environ: Mapping[str, str]) -> str:
    """Returns the folder below which LAVIS keeps downloads and annotation files.

    Args:
        current: The folder that LAVIS chose when it was imported.
        environ: The environment; ``LAVIS_CACHE_ROOT`` wins, then a `current` that somebody set
            in LAVIS' own ``configs/default.yaml``, then ``$XDG_CACHE_HOME/lavis``, then
            ``~/.cache/lavis``.
    """
    explicit = environ.get("LAVIS_CACHE_ROOT")
    if explicit:
        return str(Path(explicit).expanduser().absolute())
    if Path(current) != Path(LAVIS_DEFAULT_CACHE):
        return current
    caches = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return str(caches.absolute() / "lavis")


def choose_model_type(name: str, model_type: str | None, models: Mapping[str, Any]) -> str:
    """Returns the model type to load when the caller may have named none.

    Args:
        name: Name of a registered model.
        model_type: What the caller asked for.
        models: The model classes of the registry by name.

    Raises:
        ConfigError: No such model, a model that has no default type, or no such type of ours.
    """
    if name not in models:
        near = difflib.get_close_matches(str(name), models, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        known = ", ".join(sorted(models))
        raise ConfigError([f"no model is registered as {name!r}{hint} Registered: {known}."])
    default = getattr(models[name], "DEFAULT_MODEL_TYPE", None)
    chosen = model_type or default
    types = getattr(models[name], "PRETRAINED_MODEL_CONFIG_DICT", {})
    known = ", ".join(types) or "none"
    if chosen is None:
        raise ConfigError([f"model {name!r} needs a model_type; it has: {known}"])
    # only for models that have a default type, which are ours: LAVIS' CLIP knows unlisted types
    if default is not None and chosen not in types:
        raise ConfigError([f"model {name!r} has no model_type {chosen!r}; it has: {known}"])
    return str(chosen)


def _move_cache(lavis: Any, paths: dict[str, str]) -> None:
    # LAVIS' default is a folder of its authors' cluster: an ordinary user may not write there, and
    # root creates /export. LAVIS only reads the registry entry; nothing has been created so far.
    # Registering a path a second time is refused, hence the assignment.
    paths["cache_root"] = lavis.cache_root = choose_cache_root(paths["cache_root"], os.environ)


def _make_model_type_optional(lavis: Any, models: Mapping[str, Any]) -> None:
    # In LAVIS `model_type` is a required argument, and an unknown name ends in
    # "'NoneType' object has no attribute 'from_pretrained'". `lavis` re-exports `load_model`.
    for module in (lavis, lavis.models):
        for name in ("load_model", "load_model_and_preprocess"):
            load = getattr(module, name, None)
            if load is not None and not hasattr(load, _PATCHED):
                setattr(module, name, _with_optional_type(load, models))


def _with_optional_type(load: Callable[..., Any], models: Mapping[str, Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_with_optional_type(
        name: str, model_type: str | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        return load(name, choose_model_type(name, model_type, models), *args, **kwargs)

    setattr(load_with_optional_type, _PATCHED, True)
    return load_with_optional_type


def _import_all(names: Iterable[str]) -> list[str]:
    """Imports modules; returns one line for each that failed."""
    failures = []
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - reported together, the others still register
            failures.append(f"{name}: {type(error).__name__}: {error}")
    return failures


def _refresh_zoos() -> None:
    # Both zoos are snapshots of the registry taken while LAVIS was imported. Their content is
    # replaced, not the objects, so that a zoo somebody already holds is up to date as well.
    from lavis.datasets.builders import dataset_zoo
    from lavis.models import model_zoo

    for zoo in (dataset_zoo, model_zoo):
        vars(zoo).update(vars(type(zoo)()))
