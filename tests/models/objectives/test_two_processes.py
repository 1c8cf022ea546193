from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

LOSSES = ("itc", "itm", "lm")


def test_two_processes_equal_the_joint_batch(tmp_path: Path) -> None:
    """Losses to 1e-5 and gradients to 1e-4: the sums run in another order, nothing else differs."""
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    result = subprocess.run(
        [*command, str(script), str(tmp_path / "differences.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    differences = json.loads((tmp_path / "differences.json").read_text())
    assert set(LOSSES) < set(differences)
    assert len(differences) > 40
    assert max(differences[name] for name in LOSSES) < 1e-5
    assert max(differences.values()) < 1e-4, max(differences.items(), key=lambda item: item[1])
