"""Files of several stages that were interrupted: the stages that are done are not run again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from lavis_msmedcap.common.distributed import gather_objects, get_world_size, is_main_process
from lavis_msmedcap.common.paths import resolve_path
from lavis_msmedcap.common.whole_files import write_whole
from lavis_msmedcap.run_config import RunConfig
from lavis_msmedcap.runners.run_status import fingerprint
from lavis_msmedcap.runners.settings import OFF

logger = logging.getLogger(__name__)


class Chain:
    """The stages of one file, as far as they are done.

    A small file in the last stage's ``run.output_dir`` remembers them until all are. Without
    ``run.resume`` nothing is remembered, and every stage is run.

    Args:
        configs: All stages.
    """

    def __init__(self, configs: Sequence[RunConfig]) -> None:
        self._names = [config.stage for config in configs]
        self._file = _file_of(configs) if len(configs) > 1 and _wants_resume(configs) else None
        found = self._read() if is_main_process() else []
        self._done: list[str] = gather_objects([found])[0]

    def is_done(self, config: RunConfig) -> bool:
        """Tells whether a stage was finished before an interruption."""
        done = config.stage in self._done
        if done:
            logger.info(
                "stage %s is done already; to run it again, set run.resume=off", config.stage
            )
        return done

    def finish(self, config: RunConfig) -> None:
        """Remembers that a stage is done; after the last one all are forgotten."""
        self._done.append(config.stage)
        if self._file is None or not is_main_process():
            return
        if set(self._done) >= set(self._names):
            self._file.unlink(missing_ok=True)
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._file, [json.dumps(self._done)])

    def how_to_go_on(self) -> str:
        """Says what to do after an end between the stages, or before the first one has a state."""
        done = [name for name in self._names if name in self._done]
        if not done:
            return "Nothing had been saved yet; start it again."
        if self._file is None:
            return (
                f"done: {', '.join(done)}; with --options run.resume=auto an interrupted file goes "
                "on with the stage after those that are done"
            )
        return f"done: {', '.join(done)}; the same command goes on with the next stage"

    def _read(self) -> list[str]:
        try:
            content = json.loads(self._file.read_text(encoding="utf-8")) if self._file else []
        except (OSError, ValueError):
            return []
        return [name for name in self._names if name in content]


def _wants_resume(configs: Sequence[RunConfig]) -> bool:
    return any(config.run_cfg.get("resume") not in (None, False, OFF) for config in configs)


def _file_of(configs: Sequence[RunConfig]) -> Path:
    """Names the file by what all stages do: changed settings begin a new chain."""
    marks = [
        f"{fingerprint(config.to_dict())} "
        f"{int(config.run_cfg.get('batch_size_train', 1)) * get_world_size()}"
        for config in configs
    ]
    name = hashlib.blake2b("".join(marks).encode(), digest_size=6).hexdigest()
    return resolve_path(str(configs[-1].run_cfg.get("output_dir", "output"))) / f".stages-{name}"
