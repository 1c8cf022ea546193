"""Who may import whom: every module has a layer, and imports point downwards or sideways.

The imports are read from the source, those inside functions included; nothing is executed.
"""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "lavis_msmedcap"
ROOT = Path(__file__).resolve().parent.parent / PACKAGE

# The longest entry that a module's name starts with decides. A package's own `__init__` is executed
# before each of its modules, so where a room has modules of several layers, it counts as layer 0.
LAYERS = {
    # 0 ground: the standard library and torch
    "common": 0,
    "models.__init__": 0,
    "datasets.__init__": 0,
    "evaluation.metrics.__init__": 1,
    # 1 parts: tensors and plain values; no registry, no configuration object
    "imaging": 1,
    "phantom": 1,
    "datasets.readers": 1,
    "datasets.random_streams": 1,
    "datasets.records": 1,
    "datasets.caption_text": 1,
    "datasets.laterality": 1,
    "datasets.collate": 1,
    "datasets.skipping": 1,
    "datasets.summary": 1,
    "evaluation.metrics": 1,
    "models.encoders": 1,
    "models.objectives": 1,
    "models.decoding": 1,
    "models.decoding_policies": 1,
    "models.gradient_checkpointing": 1,
    "models.llm": 1,
    "models.llm_cache": 1,
    "models.llm_files": 1,
    "models.llm_text": 1,
    "models.answers": 1,
    "models.key_values": 1,
    "models.lemmas": 1,
    "models.logits": 1,
    "models.lora": 1,
    "models.opt": 1,
    "models.text_lengths": 1,
    "models.weight_catalog": 1,
    "models.weight_download": 1,
    "models.weight_files": 1,
    "models.checkpoint_names": 1,
    "models.freezing": 1,
    "models.frozen_marks": 1,
    "models.precision": 1,
    "models.quantization": 1,
    "models.qformer_cache": 1,
    "models.samples": 1,
    "models.views": 1,
    "models.vocabularies": 1,
    "models.weights": 1,
    # 2 assemblies: parts put together; no configuration object
    "data_check": 2,
    "evaluation": 2,
    "memory": 2,
    "report": 2,
    "data_convert": 2,
    "datasets.blocks": 1,
    "datasets.demo_shards": 2,
    "datasets.mixing": 2,
    "datasets.places": 2,
    "models.branch": 2,
    "models.build": 2,
    "models.captioner": 2,
    "models.checkpoint_check": 2,
    "models.checkpoint_settings": 2,
    "models.checkpoints": 2,
    "models.feature_cache": 2,
    "models.conversion": 2,
    "models.conversion_settings": 2,
    "models.inventory": 2,
    "models.qformer_init": 2,
    "models.settings_schema": 2,
    "models.starting_points": 2,
    "models.features": 2,
    "models.llm_build": 2,
    "models.matching": 2,
    "models.recall": 2,
    "models.retrieval": 2,
    # 3 LAVIS seams: the classes in LAVIS' registry and what only they use
    "processors": 3,
    "tasks": 3,
    "runners": 3,
    "datasets.builders": 3,
    "datasets.caption_datasets": 3,
    "models.base": 3,
    "models.checkpoint_loading": 3,
    "models.blip2_dual_qformer": 3,
    "models.trained_qformers": 3,
    "models.image_text_matching": 3,
    "models.msmedcap": 3,
    # 4 entry: start-up hook, commands, run configurations
    "_autoload": 4,
    "_compat": 4,
    "_register": 4,
    "cli": 4,
    "config_schema": 4,
    "data_check_command": 4,
    "data_command": 4,
    "data_convert_command": 4,
    "doctor": 4,
    "doctor_findings": 4,
    "doctor_machine": 4,
    "doctor_needs": 4,
    "doctor_packages": 4,
    "convert_checkpoint": 4,
    "evaluate": 4,
    "launch": 4,
    "run_checks": 4,
    "run_chain": 4,
    "run_config": 4,
    "run_data": 4,
    "run_memory": 4,
    "run_options": 4,
    "run_recipe": 4,
    "run_relations": 4,
    "run_sources": 4,
    "run_stages": 4,
    "train": 4,
    "weights_command": 4,
}

# What a layer must not import from outside the package. LAVIS' networks may be used from layer 1.
FORBIDDEN = {
    1: ("lavis.common.registry", "omegaconf"),
    2: ("lavis.common.registry", "omegaconf"),
}
HOOK = ("__init__", "_autoload")  # executed at every interpreter start


def test_every_module_has_a_layer_and_imports_downwards() -> None:
    problems = check_package(ROOT)
    assert not problems, "\n" + "\n".join(problems)


def test_the_table_names_only_what_exists() -> None:
    names = set(modules_of(ROOT))
    stale = [entry for entry in LAYERS if not any(covers(entry, name) for name in names)]
    assert not stale, f"remove from LAYERS in {Path(__file__).name}: {stale}"


def test_the_start_up_hook_reads_only_the_standard_library() -> None:
    imported = []
    for name in HOOK:
        tree = ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))
        imported += [found for node in tree.body if is_import(node) for found in imports_of(node)]
    assert set(imported) == {"lavis_msmedcap._autoload.install", "os", "sys"}


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("common/bad.py", "import lavis", "layer 0 may use only"),
        ("common/bad.py", "def f():\n    import numpy.linalg", "layer 0 may use only"),
        ("common/bad.py", "from lavis_msmedcap.imaging import views", "imaging.views of layer 1"),
        ("imaging/bad.py", "from omegaconf import OmegaConf", "must not import omegaconf"),
        ("phantom/bad.py", "from lavis.common.registry import registry", "must not import lavis"),
        ("phantom/bad.py", "from lavis.common import registry", "must not import lavis"),
        ("report/bad.py", "import lavis_msmedcap.tasks", "tasks of layer 3"),
        ("tasks/bad.py", "from lavis_msmedcap.cli import main", "cli of layer 4"),
        ("tasks/bad.py", "from . import other", "relative import"),
        ("models/no_such_room.py", "", "add 'models.no_such_room' to LAYERS"),
    ],
)
def test_the_check_finds_a_violation(tmp_path: Path, path: str, source: str, expected: str) -> None:
    root = tmp_path / PACKAGE
    for existing in ("imaging/views.py", "tasks/__init__.py", "cli.py"):
        (root / existing).parent.mkdir(parents=True, exist_ok=True)
        (root / existing).write_text("import torch\n", encoding="utf-8")
    assert check_package(root) == []

    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(source, encoding="utf-8")
    problems = check_package(root)
    assert len(problems) == 1
    assert path in problems[0]
    assert expected in problems[0]


def check_package(root: Path) -> list[str]:
    """Returns one sentence for each module without a layer and for each import that is wrong."""
    modules = modules_of(root)
    problems = []
    for name, path in sorted(modules.items()):
        where = path.relative_to(root).as_posix()
        layer = layer_of(name)
        if layer is None:
            problems.append(
                f"{where}: no layer; add {name!r} to LAYERS in tests/{Path(__file__).name}"
            )
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for imported in dict.fromkeys(imports_of(tree)):
            problem = check_import(layer, imported, modules)
            if problem:
                problems.append(f"{where}: {problem}")
    return list(dict.fromkeys(problems))


def check_import(layer: int, imported: str, modules: dict[str, Path]) -> str | None:
    """Says what is wrong with an import; None when nothing is.

    Args:
        layer: Layer of the importing module.
        imported: Full dotted name, perhaps of something inside a module.
        modules: The modules of the package by name.
    """
    if imported.startswith("."):
        return "relative import; write the full name"
    if imported == PACKAGE or imported.startswith(f"{PACKAGE}."):
        target = module_named(imported[len(PACKAGE) + 1 :], modules)
        above = layer_of(target)
        if above is not None and above > layer:
            return f"layer {layer} imports {target.removesuffix('.__init__')} of layer {above}"
        return None
    if layer == 0 and not is_standard(imported) and imported.partition(".")[0] != "torch":
        return f"imports {imported}; layer 0 may use only the standard library and torch"
    for name in FORBIDDEN.get(layer, ()):
        if imported == name or imported.startswith(f"{name}."):
            return f"layer {layer} must not import {name}"
    return None


def modules_of(root: Path) -> dict[str, Path]:
    """Maps the dotted names below the package (``models.branch``) to their files.

    The package's own ``__init__`` is left out: it runs before everything and imports no room.
    """
    files = {path: path.relative_to(root).with_suffix("").parts for path in root.rglob("*.py")}
    return {".".join(parts): path for path, parts in files.items() if parts != ("__init__",)}


def layer_of(name: str) -> int | None:
    matches = [entry for entry in LAYERS if covers(entry, name)]
    return LAYERS[max(matches, key=len)] if matches else None


def covers(entry: str, name: str) -> bool:
    return name == entry or name.startswith(f"{entry}.")


def module_named(name: str, modules: dict[str, Path]) -> str:
    """Returns the module that an imported name is, or is defined in; "" for the package itself."""
    while name:
        for candidate in (name, f"{name}.__init__"):
            if candidate in modules:
                return candidate
        name = name.rpartition(".")[0]
    return ""


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Yields the full dotted name of everything imported; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield from (f"{source}.{alias.name}" for alias in node.names)


def is_import(node: ast.AST) -> bool:
    return isinstance(node, (ast.Import, ast.ImportFrom))


def is_standard(imported: str) -> bool:
    """Tells whether a module comes with Python (`sys.stdlib_module_names` is not in 3.9)."""
    spec = importlib.util.find_spec(imported.partition(".")[0])
    if spec is None or spec.origin is None:
        return False
    standard = Path(sysconfig.get_path("stdlib"))
    origin = Path(spec.origin)
    return spec.origin in ("built-in", "frozen") or (
        standard in origin.parents and "site-packages" not in origin.parts
    )
