"""The import hook that makes a stock LAVIS find this package.

It runs at every interpreter start (`lavis_msmedcap.pth` imports the package), so it imports nothing
that Python has not loaded by then (even `__future__` would be another file to read, hence the
quoted annotations), and it answers at once for names that it does not serve.

What it serves:

* ``lavis``: the real package, executed with what it misses in newer libraries
  (`_compat.newer_libraries`) and, right after its execution, `_register.register()`.
* ``lavis.train``, ``lavis.evaluate``: the files of this package, unless LAVIS brings its own.
* ``lavis_msmedcap.*``: the real modules; the hook only counts those being executed. When one of
  them is what imports ``lavis`` first, registration waits until it is complete, because the
  registering modules may need it.
"""

import os
import sys

TYPE_CHECKING = False  # the constant of `typing`, whose import costs more than this whole hook
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    Execute = Callable[[ModuleType], None]

HOST = "lavis"
PACKAGE = "lavis_msmedcap"
ENTRY_POINTS = {"lavis.train": "train.py", "lavis.evaluate": "evaluate.py"}


class PluginFinder:
    """A finder in front of all others on `sys.meta_path`; see the module's description."""

    def __init__(self) -> None:
        self._executing = 0
        self._pending = False

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Finds a module that this hook serves; returns None for every other name."""
        if name == HOST:
            return _wrap_execution(self._real_spec(name, path, target), self._execute_host)
        if name.startswith(PACKAGE + "."):
            return _wrap_execution(self._real_spec(name, path, target), self._execute_own)
        if name in ENTRY_POINTS:
            return self._real_spec(name, path, target) or _entry_point_spec(name)
        return None

    def register_when_complete(self) -> None:
        """Registers with LAVIS now, or when no module of this package is being executed."""
        self._pending = True
        self._settle()

    def _real_spec(
        self, name: str, path: "Sequence[str] | None", target: "ModuleType | None"
    ) -> "ModuleSpec | None":
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            if finder is self or find_spec is None:
                continue
            spec: ModuleSpec | None = find_spec(name, path, target)
            if spec is not None:
                return spec
        return None

    def _execute_host(self, execute: "Execute", module: "ModuleType") -> None:
        # `python -m lavis.train` imports LAVIS, and its warnings come, before our first line runs.
        if not ENTRY_POINTS.keys().isdisjoint(getattr(sys, "orig_argv", ())):  # new in Python 3.10
            from lavis_msmedcap.common.startup import prepare_process

            prepare_process()
        from lavis_msmedcap._compat import newer_libraries

        with newer_libraries():
            execute(module)
        self.register_when_complete()

    def _execute_own(self, execute: "Execute", module: "ModuleType") -> None:
        self._executing += 1
        try:
            execute(module)
        finally:
            self._executing -= 1
            self._settle()

    def _settle(self) -> None:
        if self._pending and self._executing == 0:
            self._pending = False
            _register_or_warn()


def install() -> None:
    """Puts the finder in front of the import system, once, and catches up with a loaded LAVIS."""
    if any(type(finder).__name__ == PluginFinder.__name__ for finder in sys.meta_path):
        return
    finder = PluginFinder()
    sys.meta_path.insert(0, finder)
    if HOST in sys.modules:
        finder.register_when_complete()


def _wrap_execution(
    spec: "ModuleSpec | None", run: "Callable[[Execute, ModuleType], None]"
) -> "ModuleSpec | None":
    """Lets `run` execute the module that a spec describes.

    The method is replaced on the loader object, which belongs to this one module, instead of
    putting another loader around it: resources, source look-up and `runpy` keep working.
    """
    if spec is None or spec.loader is None or spec.origin is None:
        return spec  # not found, or a folder without code
    execute = spec.loader.exec_module
    spec.loader.exec_module = lambda module: run(execute, module)  # type: ignore[method-assign]
    return spec


def _entry_point_spec(name: str) -> "ModuleSpec | None":
    from importlib.util import spec_from_file_location

    folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - no pathlib here
    return spec_from_file_location(name, f"{folder}/{ENTRY_POINTS[name]}")


def _register_or_warn() -> None:
    """Registers; a failure must not take LAVIS down for code that does not need this package."""
    try:
        from lavis_msmedcap._register import register

        register()
    except Exception as error:  # noqa: BLE001 - whatever it is, it becomes the warning below
        import warnings

        warnings.warn(
            "lavis_msmedcap could not register everything with LAVIS; LAVIS itself works. "
            f"{type(error).__name__}: {error}\n"
            "LAVIS_MSMEDCAP_AUTOLOAD=0 starts Python without lavis_msmedcap.",
            RuntimeWarning,
            stacklevel=2,
        )
