"""The import hook, in fresh interpreters with small stand-ins for LAVIS and for registration."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Registration itself is tested in test_register.py; here it only says when it happens.
FAKE_REGISTRATION = """
import sys, types
fake = types.ModuleType("lavis_msmedcap._register")
fake.register = lambda: print("registered")
sys.modules["lavis_msmedcap._register"] = fake
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a stand-in for LAVIS and a copy of the start-up files of this package."""
    write(tmp_path / "lavis" / "__init__.py", "print('lavis executed')")
    write(tmp_path / "lavis" / "models.py", "NAME = 'models'")
    package = tmp_path / "lavis_msmedcap"
    for name in ("__init__.py", "_autoload.py", "_compat.py"):
        write(package / name, (ROOT / "lavis_msmedcap" / name).read_text(encoding="utf-8"))
    write(package / "train.py", "print('train as', __name__)")
    write(package / "evaluate.py", "print('evaluate as', __name__)")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def python(site: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environ.update({"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", **variables})
    # Without `site`, an installed copy of the package stays out of the way.
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        env=environ,
        cwd=site,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def output(site: Path, code: str) -> list[str]:
    done = python(site, "-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_lavis_is_executed_and_then_registered(site: Path) -> None:
    code = FAKE_REGISTRATION + "import lavis_msmedcap\nprint('ready')\nimport lavis.models"
    assert output(site, code) == ["ready", "lavis executed", "registered"]


def test_a_second_import_registers_nothing_again(site: Path) -> None:
    code = FAKE_REGISTRATION + "import lavis_msmedcap, lavis, lavis.models, lavis_msmedcap.train"
    assert output(site, code).count("registered") == 1


def test_importing_the_package_after_lavis_registers_at_once(site: Path) -> None:
    code = FAKE_REGISTRATION + "import lavis\nprint('late')\nimport lavis_msmedcap"
    assert output(site, code) == ["lavis executed", "late", "registered"]


def test_installing_twice_adds_one_finder(site: Path) -> None:
    code = """
        import sys, importlib, lavis_msmedcap
        importlib.reload(sys.modules["lavis_msmedcap._autoload"]).install()
        importlib.reload(lavis_msmedcap)
        print([type(finder).__name__ for finder in sys.meta_path].count("PluginFinder"))
    """
    assert output(site, code) == ["1"]


def test_registration_waits_for_the_module_that_imported_lavis(site: Path) -> None:
    # As if `lavis_msmedcap.models.branch` were imported first: it is what imports LAVIS, and what
    # registration needs is defined only below that line.
    write(site / "lavis_msmedcap" / "branch.py", "import lavis\nBRANCH = 'complete'")
    write(site / "lavis_msmedcap" / "outer.py", "import lavis_msmedcap.branch\nprint('outer done')")
    write(
        site / "lavis_msmedcap" / "_register.py",
        "def register():\n    from lavis_msmedcap.branch import BRANCH\n    print('found', BRANCH)",
    )
    assert output(site, "import lavis_msmedcap.branch") == ["lavis executed", "found complete"]
    assert output(site, "import lavis_msmedcap.outer") == [
        "lavis executed",
        "outer done",
        "found complete",
    ]


def test_registration_still_happens_when_that_module_fails(site: Path) -> None:
    write(site / "lavis_msmedcap" / "broken.py", "import lavis\nraise OSError('broken')")
    code = FAKE_REGISTRATION + textwrap.dedent("""
        try:
            import lavis_msmedcap.broken
        except OSError as error:
            print(error)
    """)
    assert output(site, code) == ["lavis executed", "registered", "broken"]


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_the_commands_are_found_inside_lavis(site: Path, name: str) -> None:
    # `-m` needs the hook before the first line of code: a sitecustomize plays the .pth file.
    write(site / "sitecustomize.py", FAKE_REGISTRATION + "import lavis_msmedcap")
    code = f"""
        import runpy, sitecustomize
        runpy.run_module("lavis.{name}", run_name="__main__", alter_sys=True)
        import lavis.{name}
        print(lavis.{name}.__file__)
    """
    assert output(site, code) == [
        "lavis executed",
        "registered",
        f"{name} as __main__",
        f"{name} as lavis.{name}",
        str(site / "lavis_msmedcap" / f"{name}.py"),
    ]


def test_a_command_that_lavis_brings_itself_wins(site: Path) -> None:
    write(site / "lavis" / "train.py", "print('their train')")
    code = FAKE_REGISTRATION + "import lavis_msmedcap, lavis.train"
    assert output(site, code) == ["lavis executed", "registered", "their train"]


def test_other_names_are_not_touched(site: Path) -> None:
    code = """
        import lavis_msmedcap, sys
        finder = sys.meta_path[0]
        print(finder.find_spec("json"), finder.find_spec("lavis_msmedcap_other"))
        print(finder.find_spec("lavis.runners", [sys.path[0]]))
    """
    assert output(site, code) == ["None None", "None"]


def test_a_missing_lavis_is_reported_by_python_itself(tmp_path: Path, site: Path) -> None:
    (site / "lavis" / "__init__.py").unlink()
    (site / "lavis" / "models.py").unlink()
    (site / "lavis").rmdir()
    done = python(site, "-c", "import lavis_msmedcap, lavis")
    assert "ModuleNotFoundError: No module named 'lavis'" in done.stderr


def test_a_folder_named_lavis_is_left_alone(site: Path) -> None:
    (site / "lavis" / "__init__.py").unlink()
    code = FAKE_REGISTRATION + "import lavis_msmedcap, lavis; print(lavis.__file__)"
    assert output(site, code) == ["None"]


def test_the_source_of_wrapped_modules_can_still_be_read(site: Path) -> None:
    code = FAKE_REGISTRATION + textwrap.dedent("""
        import inspect, lavis_msmedcap, lavis, lavis_msmedcap.train
        print(inspect.getsource(lavis).strip())
        print(type(lavis.__loader__).__name__)
    """)
    assert output(site, code)[-2:] == ["print('lavis executed')", "SourceFileLoader"]


def test_failing_registration_is_a_warning_and_lavis_works(site: Path) -> None:
    write(
        site / "lavis_msmedcap" / "_register.py",
        "def register():\n    raise KeyError('two of a name')",
    )
    done = python(site, "-c", "import lavis_msmedcap, lavis.models; print(lavis.models.NAME)")
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["lavis executed", "models"]
    assert "RuntimeWarning: lavis_msmedcap could not register" in done.stderr
    assert "KeyError: 'two of a name'" in done.stderr
    assert "LAVIS_MSMEDCAP_AUTOLOAD=0" in done.stderr


def test_importing_the_package_loads_neither_torch_nor_lavis(site: Path) -> None:
    code = """
        import os, sys
        before = set(sys.modules)
        import lavis_msmedcap
        print(sorted(set(sys.modules) - before))
    """
    assert output(site, code) == ["['lavis_msmedcap', 'lavis_msmedcap._autoload']"]


HOOK_LINE = (ROOT / "lavis_msmedcap.pth").read_text(encoding="utf-8")


def test_the_start_up_line_is_one_that_python_executes() -> None:
    assert HOOK_LINE.count("\n") == 1
    assert HOOK_LINE.startswith("import ")


def test_the_start_up_line_imports_the_package(site: Path) -> None:
    code = HOOK_LINE + "import sys; print(type(sys.meta_path[0]).__name__)"
    assert output(site, code) == ["PluginFinder"]


def test_the_start_up_line_obeys_the_switch(site: Path) -> None:
    code = HOOK_LINE + "import sys; print('lavis_msmedcap' in sys.modules)"
    done = python(site, "-c", code, LAVIS_MSMEDCAP_AUTOLOAD="0")
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize("damage", ["raise RuntimeError('damaged')", "def broken(:"])
def test_the_start_up_line_survives_a_damaged_package(site: Path, damage: str) -> None:
    write(site / "lavis_msmedcap" / "_autoload.py", damage)
    assert output(site, HOOK_LINE + "print('alive')") == ["alive"]


def test_the_start_up_line_survives_a_missing_package(tmp_path: Path) -> None:
    assert output(tmp_path, HOOK_LINE + "print('alive')") == ["alive"]
