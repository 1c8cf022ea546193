"""What every test gets: no network, no touch of the user's caches, nothing left over.

The environment is set while this file is imported, which is before any test imports torch.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Kept between test runs, because generating the phantom images again would cost a minute.
TEST_CACHE = Path(__file__).resolve().parent.parent / ".test_cache"

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "LAVIS_MSMEDCAP_CACHE": str(TEST_CACHE / "lavis_msmedcap"),
    "LAVIS_CACHE_ROOT": str(TEST_CACHE / "lavis"),
    "HF_HOME": str(TEST_CACHE / "huggingface"),
    "TORCH_HOME": str(TEST_CACHE / "torch"),
    "MPLCONFIGDIR": str(TEST_CACHE / "matplotlib"),
}
os.environ.update(ENVIRONMENT)
os.environ.pop("LAVIS_MSMEDCAP_WEIGHTS", None)  # real weights of whoever runs the tests

pytest_plugins = ["tiny_models", "environments", "file_server", "places"]  # in tests/support

# A LAVIS runner registers them, and the registry refuses to do it a second time.
RUN_PATHS = ("result_dir", "output_dir")
LOOPBACK = ("127.", "::1", "localhost")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a connection to another machine an error; loopback and local sockets stay."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            raise RuntimeError(f"a test tried to connect to {address[0]}: tests are offline")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)


@pytest.fixture(autouse=True)
def restore_torch() -> Iterator[None]:
    """Undoes what a test may leave behind in torch: default dtype, grad mode, a process group."""
    yield
    torch = sys.modules.get("torch")
    if torch is None:
        return
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture(autouse=True)
def restore_lavis_paths() -> Iterator[None]:
    """Puts back the paths that LAVIS keeps in its registry, and forgets those of a finished run."""
    before = dict(_lavis_paths())
    yield
    after = _lavis_paths()
    after.update(before)
    for name in RUN_PATHS:
        if name not in before:
            after.pop(name, None)


def _lavis_paths() -> dict[str, str]:
    module = sys.modules.get("lavis.common.registry")
    return module.registry.mapping["paths"] if module else {}
