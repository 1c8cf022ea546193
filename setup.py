"""Builds the distribution: package, run configurations, requirements and the start-up hook.

The tool settings are in pyproject.toml; everything that describes the distribution is here, because
some files have to be put where setuptools has no setting for them: `lavis_msmedcap.pth` beside the
package (that is where Python looks for start-up hooks), `projects/msmedcap` and `requirements`
inside it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import zipfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
PACKAGE = "lavis_msmedcap"
HOOK = f"{PACKAGE}.pth"  # must sort after setuptools' own "__editable__...pth"
SHIPPED = (Path("projects") / "msmedcap", Path("requirements"))  # beside the package in a checkout


def read_version() -> str:
    text = (ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


class BuildWithHook(build_py):
    """Adds the hook, the run configurations and `requirements` to a build.

    In an editable installation setuptools copies nothing; it asks for the mapping alone (its strict
    mode links the files listed there), and the hook is added to the finished wheel below.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for target, source in self._extra_files().items():
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, *self._extra_files()]

    def get_output_mapping(self) -> dict[str, str]:
        return {**super().get_output_mapping(), **self._extra_files()}

    def _extra_files(self) -> dict[str, str]:
        build = Path(self.build_lib)
        shipped = sorted(p for folder in SHIPPED for p in folder.rglob("*") if p.is_file())
        files = {str(build / PACKAGE / path): str(path) for path in shipped}
        if not self.editable_mode:
            files[str(build / HOOK)] = HOOK
        return files


class EditableWithHook(editable_wheel):
    """Adds the hook to the finished wheel of an editable installation.

    setuptools has no public way to put a file beside the package there. The format of a wheel is
    a standard, so the finished file is rewritten instead of relying on setuptools' inner steps.
    """

    def run(self) -> None:
        super().run()
        for wheel in Path(self.dist_dir).glob(f"{PACKAGE}-{read_version()}-*.whl"):
            add_to_wheel(wheel, ROOT / HOOK)


def add_to_wheel(wheel: Path, source: Path) -> None:
    """Adds a file at the top level of a wheel and to its list of contents."""
    content = source.read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    rewritten = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(rewritten, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                data += f"{source.name},sha256={digest},{len(content)}\n".encode()
            new.writestr(entry, data)
        new.writestr(source.name, content)
    rewritten.replace(wheel)


readme = ROOT / "README.md"

setup(
    name="lavis-msmedcap",
    version=read_version(),
    description="MSMedCap for LAVIS: medical image captioning with dual CLIP and SAM Q-Formers",
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    author="lavis_msmedcap authors",
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["configs/**/*", "assets/**/*", "py.typed"]},
    python_requires=">=3.9,<3.12",  # the range for which LAVIS' pinned dependencies have wheels
    install_requires=[
        "salesforce-lavis==1.0.2",
        "segment-anything>=1.0",
        "torch>=2.0",
        "torchvision",
        "transformers>=4.25,<4.27",  # LAVIS' own range; beam search breaks in LAVIS above it
        "tokenizers",
        "omegaconf>=2.1",
        # LAVIS names no version; the newest ones for Python 3.9 want numpy 2 or a compiler
        "spacy<3.8; python_version < '3.10'",
        "numpy<2",  # opencv-python-headless 4.5.5.64, pinned by LAVIS, was built for numpy 1
        "safetensors>=0.3",
        "pycocoevalcap",
        "Pillow",
        "pydicom>=2.4",
        "tensorboard",
        "tqdm",
        "requests",
        "filelock",
        "pyyaml",
    ],
    extras_require={
        # model.llm.lora; later versions import transformers.Cache, which 4.26 does not have
        "lora": ["peft>=0.9,<0.14"],
        "quant": ["bitsandbytes>=0.45"],  # model.llm.quantization
        "nifti": ["nibabel>=4"],
        "wandb": ["wandb>=0.20"],  # run.trackers
        "mlflow": ["mlflow-skinny>=2.9"],  # run.trackers; the whole mlflow does too
        "parquet": ["pyarrow>=10,<24"],  # later ones need numpy 2
        "dev": [
            "ruff>=0.17,<0.18",  # its formatting changes between minor versions
            "mypy>=1.15,<3",
            "pytest>=8",
            "pytest-xdist>=3",
            "hypothesis>=6",
            "nibabel>=4",
            "pyarrow>=10,<24",
            "setuptools>=70.1",  # tests/test_install.py builds without build isolation
            "wheel",
        ],
    },
    entry_points={"console_scripts": ["msmedcap = lavis_msmedcap.cli:main"]},
    cmdclass={"build_py": BuildWithHook, "editable_wheel": EditableWithHook},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
)
