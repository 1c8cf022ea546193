"""Files of several stages that were interrupted: the stages that are done are not run again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavis_msmedcap.common.distributed import gather_objects, get_world_size, is_main_process
from lavis_msmedcap.common.paths import resolve_path
from lavis_msmedcap.common.whole_files import write_whole
from lavis_msmedcap.run_config import RunConfig
from lavis_msmedcap.runners.run_directory import RunDirectory
from lavis_msmedcap.runners.run_status import fingerprint, read_status
from lavis_msmedcap.runners.settings import OFF

logger = logging.getLogger(__name__)


class Chain:
    """The stages of one file, as far as they are done.

    A small file in the last stage's ``run.output_dir`` remembers them until all are. A stage is
    known by its settings and those of the stages before it, so that another learning rate of stage
    2 does not run stage 1 again. Without ``run.resume`` nothing is remembered, and every stage is
    run.

    Args:
        configs: All stages.
    """

    def __init__(self, configs: Sequence[RunConfig]) -> None:
        self._names = [config.stage for config in configs]
        self._marks = dict(zip(self._names, _marks(configs)))
        self._file = _file_of(configs) if len(configs) > 1 and _wants_resume(configs) else None
        content = self._read() if is_main_process() else {}
        found = [name for name, mark in self._marks.items() if _is_finished(content.get(mark))]
        self._done: list[str] = gather_objects([found] if is_main_process() else [])[0]

    def is_done(self, config: RunConfig) -> bool:
        """Tells whether a stage was finished before an interruption."""
        done = config.stage in self._done
        if done:
            logger.info(
                "stage %s is done already; to run it again, set run.resume=off", config.stage
            )
        return done

    def begin(self, config: RunConfig, root: Path) -> None:
        """Remembers where a stage runs: its run directory says when it is finished."""
        self._note(config, {"run": str(root), "done": False})

    def finish(self, config: RunConfig) -> None:
        """Remembers that a stage is done; after the last one all are forgotten."""
        self._done.append(config.stage)
        if set(self._done) >= set(self._names):
            self._forget()
            return
        known = self._read().get(self._marks[config.stage], {}) if is_main_process() else {}
        self._note(config, {"run": known.get("run"), "done": True})

    def how_to_go_on(self) -> str:
        """Says what to do after an end between the stages, or while one is built."""
        done = [name for name in self._names if name in self._done]
        if not done:
            return "It was about to begin; start it again with the same command."
        if self._file is None:
            return (
                f"done: {', '.join(done)}; with --options run.resume=auto an interrupted file goes "
                "on with the stage after those that are done"
            )
        return f"done: {', '.join(done)}; the same command goes on with the next stage"

    def _note(self, config: RunConfig, entry: dict[str, Any]) -> None:
        if self._file is None or not is_main_process():
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        content = {**self._read(), self._marks[config.stage]: {"stage": config.stage, **entry}}
        write_whole(self._file, [json.dumps(content, indent=1)])

    def _forget(self) -> None:
        """Leaves what the same stages with other settings have noted."""
        if self._file is None or not is_main_process():
            return
        own = set(self._marks.values())
        rest = {mark: entry for mark, entry in self._read().items() if mark not in own}
        if rest:
            write_whole(self._file, [json.dumps(rest, indent=1)])
        else:
            self._file.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._file.read_text(encoding="utf-8")) if self._file else {}
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _is_finished(entry: Any) -> bool:
    """Tells whether a stage is done, noted as such or ended just before that, and still there."""
    if not isinstance(entry, dict):
        return False
    if not entry.get("run"):  # of LAVIS' own runners nothing else is known
        return bool(entry.get("done"))
    directory = RunDirectory(Path(entry["run"]))
    status = read_status(directory.root)
    if status is None:  # evaluations have none
        return bool(entry.get("done")) and directory.root.is_dir()
    return status.finished and directory.checkpoint_last.is_file()


def _wants_resume(configs: Sequence[RunConfig]) -> bool:
    return any(config.run_cfg.get("resume") not in (None, False, OFF) for config in configs)


def _marks(configs: Sequence[RunConfig]) -> list[str]:
    """Names each stage by its own settings and those of all before it."""
    marks, before = [], ""
    for config in configs:
        batch = int(config.run_cfg.get("batch_size_train", 1)) * get_world_size()
        place = resolve_path(str(config.run_cfg.get("output_dir", "output")))
        text = f"{before} {fingerprint(config.to_dict())} {batch} {place}"
        before = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        marks.append(before)
    return marks


def _file_of(configs: Sequence[RunConfig]) -> Path:
    """Names the file by the names of the stages, whatever their settings are."""
    text = " ".join(config.stage for config in configs)
    name = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    return resolve_path(str(configs[-1].run_cfg.get("output_dir", "output"))) / f".stages-{name}"
