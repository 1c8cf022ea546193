"""The ``run:`` section of a configuration as plain, checked values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lavis_msmedcap.common.config_check import describe_unknown
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.runners.schedule import SCHEDULES, SchedulePlan

AMP_MODES = ("off", "bf16", "fp16")
OFF, AUTO = "off", "auto"
TRACKER_NAMES = ("wandb", "mlflow")
RESUME_CKPT_PATH = (
    "this runner goes on from a run directory, not from a checkpoint: set run.resume to the "
    "directory or to auto, and run.resume_ckpt_path=null"
)
T = TypeVar("T")


@dataclass(frozen=True)
class RunSettings:
    """What the runner reads from ``run:``.

    Attributes:
        output_dir: Folder that run directories are made in, relative to the current directory.
        max_epoch: Passes over the training plan; `max_iters` takes its place.
        max_iters: Optimizer steps of the training; None counts epochs instead.
        iters_per_inner_epoch: Optimizer steps between two validations of a training that counts
            steps; None means what the plan makes of the datasets.
        batch_size_train: Images per process and forward pass.
        batch_size_eval: Images per process when evaluating.
        num_workers: Loader processes per process; 0 loads in the training process.
        init_lr: Learning rate at the end of the warm-up.
        min_lr: Smallest learning rate.
        warmup_lr: Learning rate of the first step; negative means no warm-up.
        warmup_steps: Optimizer steps from ``warmup_lr`` to ``init_lr``.
        lr_sched: One of ``schedule.SCHEDULES``.
        lr_decay_rate: Factor per epoch of ``linear_warmup_step_lr``.
        weight_decay: AdamW weight decay.
        beta2: AdamW second moment decay.
        accum_grad_iters: Forward passes per optimizer step.
        clip_grad_norm: Largest L2 norm of the gradient; None leaves it as it is.
        amp: ``off``, ``bf16`` or ``fp16``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:<index>``.
        seed: Seed of the training plan and of evaluation.
        log_freq: Optimizer steps between two rows of ``metrics.csv``.
        samples_per_epoch: Length of an epoch; None means what the plan makes of the datasets.
        max_eval_samples: At most so many images of each dataset per split; None means all.
        train_splits: Splits that are trained on.
        valid_splits: Splits evaluated after each epoch; the first one chooses the best epoch.
        test_splits: Splits evaluated at the end.
        evaluate: Evaluate only.
        train_dataset_ratios: Sampling weight by dataset name, over the datasets' own ``ratio``.
        feature_cache_gib: Main memory per process for the output of frozen encoders; 0 keeps none.
        resume: ``off``, ``auto`` (the newest unfinished run of the same configuration, if there is
            one), or a run directory.
        save_every_minutes: Time between two states within an epoch; 0 writes them between epochs.
        resume_changed: Take up the run directory that ``resume`` names under another configuration.
        keep_last: States that are kept.
        keep_best: Best epochs whose weights are kept.
        best_metric: Result of the first of ``valid_splits`` that chooses the best epoch, for
            example ``loss`` or ``CIDEr``; None leaves it to the task.
        early_stopping: Epochs without a better one after which the training ends; None never.
        deterministic: Two runs give the same bits, see `determinism`.
        compile: Compile the blocks of Q-Formers and encoders, see `compilation`.
        shard_llm: Divide the frozen LLM among the processes, see `sharding`.
        ema_decay: Decay of the average of the weights that validation and checkpoints take, see
            `ema`; None takes the weights themselves.
        trackers: Who gets the numbers of the training beside TensorBoard, see `runners.trackers`.
    """

    output_dir: str = "output/msmedcap"
    max_epoch: int = 1
    max_iters: int | None = None
    iters_per_inner_epoch: int | None = None
    batch_size_train: int = 1
    batch_size_eval: int = 1
    num_workers: int = 0
    init_lr: float = 1e-4
    min_lr: float = 0.0
    warmup_lr: float = -1.0
    warmup_steps: int = 0
    lr_sched: str = "linear_warmup_cosine_lr"
    lr_decay_rate: float = 1.0
    weight_decay: float = 0.05
    beta2: float = 0.999
    accum_grad_iters: int = 1
    clip_grad_norm: float | None = 1.0
    amp: str = "off"
    device: str = "auto"
    seed: int = 42
    log_freq: int = 50
    samples_per_epoch: int | None = None
    max_eval_samples: int | None = None
    train_splits: tuple[str, ...] = ("train",)
    valid_splits: tuple[str, ...] = ()
    test_splits: tuple[str, ...] = ()
    evaluate: bool = False
    train_dataset_ratios: dict[str, float] = field(default_factory=dict)
    feature_cache_gib: float = 0.0
    resume: str = OFF
    save_every_minutes: float = 10.0
    resume_changed: bool = False
    keep_last: int = 2
    keep_best: int = 1
    best_metric: str | None = None
    early_stopping: int | None = None
    deterministic: bool = False
    compile: bool = False
    shard_llm: bool = False
    ema_decay: float | None = None
    trackers: tuple[str, ...] = ()

    @classmethod
    def from_run_cfg(cls, run_cfg: Mapping[str, Any]) -> RunSettings:
        """Reads the ``run:`` section; keys that the runner does not use are left alone.

        Raises:
            ConfigError: Naming every value that cannot work.
        """
        reader = _Reader(run_cfg)
        settings = cls(
            output_dir=reader.get("output_dir", str, cls.output_dir),
            max_epoch=reader.integer("max_epoch", cls.max_epoch, least=0),
            max_iters=reader.optional("max_iters", None, reader.count),
            iters_per_inner_epoch=reader.optional("iters_per_inner_epoch", None, reader.count),
            batch_size_train=reader.integer("batch_size_train", cls.batch_size_train, least=1),
            batch_size_eval=reader.integer("batch_size_eval", cls.batch_size_eval, least=1),
            num_workers=reader.integer("num_workers", cls.num_workers, least=0),
            init_lr=reader.number("init_lr", cls.init_lr, least=0.0),
            min_lr=reader.number("min_lr", cls.min_lr, least=0.0),
            warmup_lr=reader.number("warmup_lr", cls.warmup_lr),
            warmup_steps=reader.integer("warmup_steps", cls.warmup_steps, least=0),
            lr_sched=reader.choice("lr_sched", cls.lr_sched, tuple(SCHEDULES)),
            lr_decay_rate=reader.number("lr_decay_rate", cls.lr_decay_rate, least=0.0),
            weight_decay=reader.number("weight_decay", cls.weight_decay, least=0.0),
            beta2=reader.number("beta2", cls.beta2, least=0.0),
            accum_grad_iters=reader.integer("accum_grad_iters", cls.accum_grad_iters, least=1),
            clip_grad_norm=reader.optional("clip_grad_norm", cls.clip_grad_norm, reader.positive),
            amp=reader.amp(),
            device=str(reader.get("device", str, cls.device)).lower(),
            seed=reader.integer("seed", cls.seed, least=0),
            log_freq=reader.integer("log_freq", cls.log_freq, least=1),
            samples_per_epoch=reader.optional("samples_per_epoch", None, reader.count),
            max_eval_samples=reader.optional("max_eval_samples", None, reader.count),
            train_splits=reader.names("train_splits", cls.train_splits),
            valid_splits=reader.names("valid_splits", cls.valid_splits),
            test_splits=reader.names("test_splits", cls.test_splits),
            evaluate=bool(run_cfg.get("evaluate", cls.evaluate)),
            train_dataset_ratios=reader.ratios("train_dataset_ratios"),
            feature_cache_gib=reader.number("feature_cache_gib", cls.feature_cache_gib, least=0.0),
            resume=reader.resume(),
            save_every_minutes=reader.number(
                "save_every_minutes", cls.save_every_minutes, least=0.0
            ),
            resume_changed=reader.flag("resume_changed", cls.resume_changed),
            keep_last=reader.integer("keep_last", cls.keep_last, least=1),
            keep_best=reader.integer("keep_best", cls.keep_best, least=1),
            best_metric=reader.optional("best_metric", None, str),
            early_stopping=reader.optional("early_stopping", None, reader.count),
            deterministic=reader.flag("deterministic", cls.deterministic),
            compile=reader.flag("compile", cls.compile),
            shard_llm=reader.flag("shard_llm", cls.shard_llm),
            ema_decay=reader.optional("ema_decay", None, reader.decay),
            trackers=reader.names("trackers", cls.trackers, TRACKER_NAMES),
        )
        if not settings.evaluate:
            reader.problems += length_problems(run_cfg)
        if settings.resume_changed and settings.resume in (OFF, AUTO):
            reader.problems.append(
                f"run.resume_changed is true, but run.resume is {settings.resume}; name the run "
                "directory that is to be taken up, run.resume=DIR"
            )
        if not settings.evaluate and not settings.valid_splits:
            reader.problems += idle_selection(settings.best_metric, settings.early_stopping)
        reader.finish()
        return settings

    def epoch_samples(self, world_size: int) -> int | None:
        """Returns the length of an epoch over all processes; None leaves it to the datasets.

        Args:
            world_size: Number of processes.
        """
        if self.iters_per_inner_epoch is None:
            return self.samples_per_epoch
        window = self.batch_size_train * self.accum_grad_iters * world_size
        return self.iters_per_inner_epoch * window

    def total_steps(self, steps_per_epoch: int) -> int:
        """Returns the optimizer steps of the whole training."""
        return steps_per_epoch * self.max_epoch if self.max_iters is None else self.max_iters

    def epochs(self, steps_per_epoch: int) -> int:
        """Returns the number of epochs, of which the last one may be shorter."""
        if self.max_iters is None:
            return self.max_epoch
        return math.ceil(self.max_iters / steps_per_epoch)

    def schedule_plan(self, steps_per_epoch: int) -> SchedulePlan:
        """Returns the numbers of the learning rate schedule.

        Args:
            steps_per_epoch: Optimizer steps of one epoch.
        """
        return SchedulePlan(
            init_lr=self.init_lr,
            min_lr=self.min_lr,
            warmup_lr=self.warmup_lr,
            warmup_steps=self.warmup_steps,
            decay_rate=self.lr_decay_rate,
            total_steps=self.total_steps(steps_per_epoch),
            steps_per_epoch=steps_per_epoch,
        )


def length_problems(run_cfg: Mapping[str, Any]) -> list[str]:
    """Says which settings of the length of a training or of an epoch contradict each other."""

    def given(key: str) -> str:
        value = run_cfg.get(key)
        return "" if value is None else f"run.{key} is {value}"

    epochs, steps = given("max_epoch"), given("max_iters")
    inner, samples = given("iters_per_inner_epoch"), given("samples_per_epoch")
    problems = []
    if epochs and steps:
        problems.append(
            f"{epochs} and {steps}, but a training has one length; set run.max_epoch=null to count "
            "optimizer steps, or run.max_iters=null to count epochs"
        )
    if inner and not steps:
        problems.append(
            f"{inner}, but run.max_iters is not given; set it (and run.max_epoch=null), or set "
            "run.iters_per_inner_epoch=null"
        )
    if inner and samples:
        problems.append(
            f"{inner} and {samples}, but an epoch has one length; set one of them to null"
        )
    return problems


def idle_selection(best_metric: Any, early_stopping: Any) -> list[str]:
    """Says which settings choose among validations, in a run that validates nothing."""
    chosen = {"best_metric": best_metric, "early_stopping": early_stopping}
    return [
        f"run.{key} is {value}, but run.valid_splits is empty, so there is nothing to choose by; "
        f"set run.valid_splits=[val], or run.{key}=null"
        for key, value in chosen.items()
        if value is not None
    ]


class _Reader:
    """Converts values of the run section, collecting what is wrong with them."""

    def __init__(self, run_cfg: Mapping[str, Any]) -> None:
        self._cfg = run_cfg
        self.problems: list[str] = []

    def finish(self) -> None:
        """Raises one error for everything found."""
        if self.problems:
            raise ConfigError(self.problems, "the run section")

    def resume(self) -> str:
        """Reads ``resume``; YAML turns ``off`` into False."""
        if self._cfg.get("resume_ckpt_path"):
            self.problems.append(f"run.resume_ckpt_path: {RESUME_CKPT_PATH}")
        value = self._cfg.get("resume")
        if isinstance(value, bool):
            return AUTO if value else OFF
        text = str(value or OFF)
        return text.lower() if text.lower() in (OFF, AUTO) else text

    def get(self, key: str, convert: Callable[[Any], T], default: T) -> T:
        """Returns the converted value, or the default where the key is missing or null."""
        value = self._cfg.get(key)
        if value is None:
            return default
        try:
            return convert(value)
        except (TypeError, ValueError, OverflowError) as error:
            self.problems.append(f"run.{key}: {error}")
            return default

    def optional(self, key: str, default: T | None, convert: Callable[[Any], T]) -> T | None:
        """Like `get`, but an explicit null means None instead of the default."""
        if key in self._cfg and self._cfg.get(key) is None:
            return None
        return self.get(key, convert, default)

    def integer(self, key: str, default: int, least: int) -> int:
        """Reads a whole number of at least ``least``."""
        return self.get(key, lambda value: _whole(value, least), default)

    def number(self, key: str, default: float, least: float = -math.inf) -> float:
        """Reads a finite number of at least ``least``."""
        return self.get(key, lambda value: _finite(value, least), default)

    @staticmethod
    def count(value: Any) -> int:
        """Converts a positive whole number."""
        return _whole(value, 1)

    @staticmethod
    def positive(value: Any) -> float:
        """Converts a number above zero."""
        number = _finite(value, 0.0)
        if number == 0.0:
            raise ValueError("0 would stop all training; use null to switch clipping off")
        return number

    @staticmethod
    def decay(value: Any) -> float:
        """Converts a number between 0 and 1."""
        number = _finite(value, 0.0)
        if not 0.0 < number < 1.0:
            raise ValueError(f"{value!r} is not between 0 and 1; 0.999 is usual, null is off")
        return number

    def flag(self, key: str, default: bool) -> bool:
        """Reads true or false; the text of neither is taken for true."""
        value = self._cfg.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problems.append(f"run.{key} is {value!r}; expected true or false")
            return default
        return value

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        """Reads one of a few words."""
        value = self.get(key, str, default)
        if value not in choices:
            self.problems.append(f"run.{key} is {value!r}; choose one of {', '.join(choices)}")
            return default
        return value

    def amp(self) -> str:
        """Reads ``amp``; YAML turns ``off`` into False, and LAVIS' True means fp16."""
        value = self._cfg.get("amp")
        if value is None or isinstance(value, bool):
            return "fp16" if value else "off"
        return self.choice("amp", "off", AMP_MODES)

    def names(
        self, key: str, default: tuple[str, ...], known: tuple[str, ...] = ()
    ) -> tuple[str, ...]:
        """Reads a list of names, each of ``known`` if that is given; null is an empty list."""
        if key not in self._cfg:
            return default
        value = self._cfg.get(key)
        if value is None:
            return ()
        names = (value,) if isinstance(value, str) else tuple(str(name) for name in value)
        self.problems += [
            describe_unknown(f"run.{key}", name, known)
            for name in names
            if known and name not in known
        ]
        return names

    def ratios(self, key: str) -> dict[str, float]:
        """Reads a mapping of dataset names to weights."""
        value = self._cfg.get(key)
        if value is None:
            return {}
        if not hasattr(value, "items"):
            self.problems.append(
                f"run.{key} is {value!r}; write a weight per dataset, for example "
                "{coco2014_caption: 2, roco: 1}"
            )
            return {}
        ratios: dict[str, float] = {}
        for name, weight in value.items():
            try:
                ratios[str(name)] = _finite(weight, 0.0)
            except (TypeError, ValueError) as error:
                self.problems.append(f"run.{key}.{name}: {error}")
        return ratios


def _whole(value: Any, least: int) -> int:
    number = float(value)
    if isinstance(value, bool) or not number.is_integer() or number < least:
        raise ValueError(f"{value!r} is not a whole number of at least {least}")
    return int(number)


def _finite(value: Any, least: float) -> float:
    number = float(value)
    if isinstance(value, bool) or not math.isfinite(number) or number < least:
        bound = "" if least == -math.inf else f" of at least {least:g}"
        raise ValueError(f"{value!r} is not a finite number{bound}")
    return number
