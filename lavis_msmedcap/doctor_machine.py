"""The machine: torch and its GPU, Java, and the folders that are written to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from lavis_msmedcap.common.paths import cache_root
from lavis_msmedcap.doctor_findings import MISSING, NOTE, OK, Finding

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
LITTLE_SPACE = 5_000_000_000  # bytes


def check_torchvision() -> Iterator[Finding]:
    """Yields a finding if torchvision was built for another torch."""
    import torch

    try:
        import torchvision  # noqa: F401 - it registers its operations with torch, or fails
    except (ImportError, RuntimeError, OSError) as error:
        first = str(error).partition("\n")[0]
        yield Finding(
            MISSING,
            f"torchvision cannot be imported beside torch {torch.__version__} ({first}); install "
            "the two together, see pytorch.org",
        )


def check_gpu() -> Iterator[Finding]:
    """Looks for a GPU that the installed torch can use."""
    import torch

    built = torch.version.cuda
    driver = NVIDIA_DRIVER.exists() or shutil.which("nvidia-smi") is not None
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield _check_device(index)
    elif not driver:
        yield Finding(NOTE, "no GPU: enough for scale demo, not for scale paper")
    elif built is None:
        yield Finding(
            MISSING,
            "an NVIDIA driver is here, but this torch was built without CUDA; install a build of "
            "torch for CUDA, see pytorch.org",
        )
    else:
        yield Finding(
            MISSING,
            f"an NVIDIA driver is here, but torch, built for CUDA {built}, sees no GPU; the driver "
            "may be too old for it (nvidia-smi shows the newest CUDA that it serves), or "
            "CUDA_VISIBLE_DEVICES hides the GPU",
        )


def _check_device(index: int) -> Finding:
    import torch

    name = torch.cuda.get_device_name(index)
    memory = torch.cuda.get_device_properties(index).total_memory
    try:
        torch.zeros(1, device=f"cuda:{index}").add_(1).item()
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        return Finding(
            MISSING,
            f"GPU {index}, {name}: torch for CUDA {torch.version.cuda} cannot compute on it "
            f"({first}); install a build of torch for this GPU, see pytorch.org",
        )
    told = f"GPU {index}: {name}, {memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
    return Finding(OK, told)


def check_java() -> Iterator[Finding]:
    """Looks for Java, which METEOR and the original tokenizer of COCO need."""
    from lavis_msmedcap.evaluation.metrics.java import JavaError, find_java

    try:
        yield Finding(OK, f"Java: {find_java()}")
    except JavaError as error:
        yield Finding(NOTE, f"Java: {error}; without it there is no METEOR")


def check_disk(outputs: Iterable[Path]) -> Iterator[Finding]:
    """Looks at the folders that are written to: free space, and whether that is allowed.

    Args:
        outputs: ``run.output_dir`` of each run.
    """
    from lavis_msmedcap.models.weight_download import show_size
    from lavis_msmedcap.models.weight_files import download_folder

    places = [("cache", cache_root()), ("downloads", download_folder())]
    for what, folder in [*places, *(("output", output) for output in outputs)]:
        existing = nearest_existing(folder)
        obstacle = _obstacle(existing)
        if obstacle:
            told = f"{what}: {folder} cannot be written ({obstacle})"
            yield Finding(MISSING, f"{told}; {_folder_cure(what)}")
            continue
        free = shutil.disk_usage(existing).free
        status = OK if free >= LITTLE_SPACE else NOTE
        yield Finding(status, f"{what}: {folder}, {show_size(free)} free")


def check_download_space(size: int) -> Iterator[Finding]:
    """Compares what will be downloaded, in bytes, with the space for it; tells only a lack."""
    from lavis_msmedcap.models.weight_download import show_size
    from lavis_msmedcap.models.weight_files import download_folder

    folder = download_folder()
    free = shutil.disk_usage(nearest_existing(folder)).free
    if size > free:
        told = f"downloads: at least {show_size(size)} will come, {show_size(free)} free: {folder}"
        yield Finding(MISSING, f"{told}; {_folder_cure('downloads')}")


def nearest_existing(folder: Path) -> Path:
    """Returns a folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _obstacle(folder: Path) -> str | None:
    """Tries to write; the file has no name, or is gone at once. Permissions do not tell it all."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        return error.strerror or str(error)
    return None


def _folder_cure(what: str) -> str:
    if what == "output":
        return "set run.output_dir to another folder"
    variable = "LAVIS_MSMEDCAP_CACHE" if what == "cache" else "LAVIS_MSMEDCAP_WEIGHTS"
    return f"set {variable} to another folder"
