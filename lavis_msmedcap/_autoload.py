"""The import hook that makes a stock LAVIS find this package.

It runs at every interpreter start (`lavis_msmedcap.pth` imports the package), so it uses nothing
but modules that Python has loaded by then, and answers at once for names it does not serve.

What it serves:

* ``lavis``: the real package, and right after it has been executed, `_register.register()`.
* ``lavis.train``, ``lavis.evaluate``: the files of this package, unless LAVIS brings its own.
* ``lavis_msmedcap.*``: the real modules; the hook only counts which are being executed. When one of
  them is what imports ``lavis`` first, registration has to wait until it is complete, because
  the registering modules may need it.
"""

import os
import sys
import warnings
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

HOST = "lavis"
PACKAGE = "lavis_msmedcap"
ENTRY_POINTS = {"lavis.train": "train.py", "lavis.evaluate": "evaluate.py"}
_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib costs more than the hook


class PluginFinder:
    """A meta path finder in front of all others; see the module's description."""

    def __init__(self) -> None:
        self._executing = 0
        self._pending = False

    def find_spec(
        self,
        name: str,
        path: "Optional[Sequence[str]]" = None,
        target: "Optional[ModuleType]" = None,
    ) -> "Optional[ModuleSpec]":
        """Finds a module that this hook serves; returns None for every other name."""
        if name == HOST:
            spec = self._real_spec(name, path, target)
            _wrap_execution(spec, self._do_nothing, self._host_executed)
            return spec
        if name.startswith(PACKAGE + "."):
            spec = self._real_spec(name, path, target)
            _wrap_execution(spec, self._own_module_starts, self._own_module_executed)
            return spec
        if name in ENTRY_POINTS:
            return self._real_spec(name, path, target) or _entry_point_spec(name)
        return None

    def register_when_complete(self) -> None:
        """Registers with LAVIS now, or after the modules of this package being executed."""
        self._pending = True
        self._settle()

    def _real_spec(
        self, name: str, path: "Optional[Sequence[str]]", target: "Optional[ModuleType]"
    ) -> "Optional[ModuleSpec]":
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            if finder is self or find_spec is None:
                continue
            spec: Optional[ModuleSpec] = find_spec(name, path, target)
            if spec is not None:
                return spec
        return None

    def _do_nothing(self) -> None:
        pass

    def _host_executed(self, complete: bool) -> None:
        if complete:
            self.register_when_complete()

    def _own_module_starts(self) -> None:
        self._executing += 1

    def _own_module_executed(self, complete: bool) -> None:
        self._executing -= 1
        self._settle()

    def _settle(self) -> None:
        if self._pending and self._executing == 0:
            self._pending = False
            _register_or_warn()


def install() -> None:
    """Puts the finder in front of the import system, once, and catches up with a loaded LAVIS."""
    if any(isinstance(finder, PluginFinder) for finder in sys.meta_path):
        return
    finder = PluginFinder()
    sys.meta_path.insert(0, finder)
    if HOST in sys.modules:
        finder.register_when_complete()


def _wrap_execution(
    spec: "Optional[ModuleSpec]",
    before: "Callable[[], None]",
    after: "Callable[[bool], None]",
) -> None:
    """Runs `before` and `after` around the execution of the module that a spec describes.

    The method is replaced on the loader object, which belongs to this one module, instead of
    putting another loader around it: resources, source look-up and `runpy` keep working.
    """
    execute = getattr(spec and spec.loader, "exec_module", None)
    if spec is None or spec.origin is None or execute is None:
        return  # a namespace folder: nothing is executed

    def exec_module(module: "ModuleType") -> None:
        before()
        complete = False
        try:
            execute(module)
            complete = True
        finally:
            after(complete)

    try:
        spec.loader.exec_module = exec_module  # type: ignore[union-attr, method-assign]
    except (AttributeError, TypeError):
        return  # a loader written in C; `import lavis_msmedcap` after LAVIS still registers


def _entry_point_spec(name: str) -> "Optional[ModuleSpec]":
    from importlib.util import spec_from_file_location

    return spec_from_file_location(name, os.path.join(_HERE, ENTRY_POINTS[name]))  # noqa: PTH118


def _register_or_warn() -> None:
    """Registers; a failure must not take LAVIS down for code that does not need this package."""
    try:
        from lavis_msmedcap._register import register

        register()
    except Exception as error:  # noqa: BLE001 - whatever it is, it becomes the warning below
        warnings.warn(
            f"lavis_msmedcap could not register with LAVIS, so its models, datasets and tasks may "
            f"be missing; LAVIS itself works. {type(error).__name__}: {error}\n"
            f"Set LAVIS_MSMEDCAP_AUTOLOAD=0 to start without lavis_msmedcap.",
            RuntimeWarning,
            stacklevel=2,
        )
