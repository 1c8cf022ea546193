"""What may stand in a run configuration, as data.

The section of our runner is written out here, that of models in `models.settings_schema`. Datasets
and processors declare their own keys as a class attribute ``CONFIG_KEYS`` (name to type), which
`declared_keys` reads.
"""

from __future__ import annotations

from typing import Any

from lavis_msmedcap.common.config_check import Key, MapOf, Node, Nullable, Section
from lavis_msmedcap.datasets.records import DOMAINS, SPLITS
from lavis_msmedcap.models.settings_schema import COUNT, MODEL_KEYS, PATH
from lavis_msmedcap.runners.schedule import SCHEDULES
from lavis_msmedcap.runners.settings import AMP_MODES, TRACKER_NAMES

# NumPy takes 32 bits, and every process adds its rank
SEED = Key(int, minimum=0, maximum=2**31 - 1)

# --- model: ------------------------------------------------------------------------------------

FOREIGN_MODEL: dict[str, Node] = {
    "arch": MODEL_KEYS["arch"],
    "model_type": MODEL_KEYS["model_type"],
    "load_finetuned": Key(bool),
    "load_pretrained": Key(bool),
}

# --- run: --------------------------------------------------------------------------------------

SPLIT_LIST = Nullable(Key(list, items=Key(str, choices=SPLITS)))
RATE = Key(float, minimum=0)
RATIO = Key(float, minimum=0, maximum=1000)
RUN_KEYS: dict[str, Node] = {
    "task": Key(str, required=True, help="the registered task"),
    "runner": Key(str),
    "max_epoch": Nullable(Key(int, minimum=0)),
    "max_iters": Nullable(COUNT),
    "iters_per_inner_epoch": Nullable(COUNT),
    "batch_size_train": COUNT,
    "batch_size_eval": COUNT,
    "num_workers": Key(int, minimum=0, maximum=512),
    "init_lr": Key(float, above=0),
    "min_lr": RATE,
    "warmup_lr": Key(float),
    "warmup_steps": Key(int, minimum=0),
    "lr_sched": Key(str),
    "lr_decay_rate": Nullable(Key(float, minimum=0, maximum=1)),
    "weight_decay": RATE,
    "beta2": Key(float, minimum=0, below=1),
    "accum_grad_iters": COUNT,
    "clip_grad_norm": Nullable(Key(float, above=0)),
    "seed": SEED,
    "output_dir": Key(str),
    # YAML reads a bare off as false; LAVIS' true is fp16
    "amp": Key((str, bool), choices=(*AMP_MODES, False, True)),
    "evaluate": Key(bool),
    "train_splits": SPLIT_LIST,
    "valid_splits": SPLIT_LIST,
    "test_splits": SPLIT_LIST,
    "train_dataset_ratios": Nullable(MapOf(RATIO)),
    "samples_per_epoch": Nullable(Key(int, minimum=1, maximum=10**9)),
    "feature_cache_gib": Key(float, minimum=0, maximum=10**6),
    "max_eval_samples": Nullable(COUNT),
    "log_freq": COUNT,
    "device": Key(str),
    "distributed": Key(bool),
    "dist_url": Key(str),
    "world_size": COUNT,
    "resume_ckpt_path": PATH,
    # YAML reads a bare off as false
    "resume": Nullable(Key((str, bool))),
    "save_every_minutes": Key(float, minimum=0),
    "resume_changed": Key(bool),
    "keep_last": COUNT,
    "keep_best": COUNT,
    "best_metric": Nullable(Key(str)),
    "early_stopping": Nullable(COUNT),
    "deterministic": Key(bool),
    "compile": Key(bool),
    "shard_llm": Key(bool),
    "ema_decay": Nullable(Key(float, above=0, below=1)),
    "trackers": Nullable(Key(list, items=Key(str, choices=TRACKER_NAMES))),
    "max_len": COUNT,
    "min_len": Key(int, minimum=0),
    "num_beams": COUNT,
    # an exponent: far from 0 the power of a length is no number any more
    "length_penalty": Key(float, minimum=-10, maximum=10),
    "repetition_penalty": Key(float, above=0),
    "report": Key(bool),
}
# What LAVIS' own runners and tasks read, or their configurations carry, beyond the keys above.
# Types only where a wrong one fails late.
LAVIS_RUN_KEYS: dict[str, Node] = {
    **RUN_KEYS,
    "train_dataset_ratios": Nullable(MapOf(RATE)),  # relative to each other
    "train_splits": Nullable(Key(list)),
    "valid_splits": Nullable(Key(list)),
    "test_splits": Nullable(Key(list)),
    "max_epoch": Key(int, minimum=0),
    "max_iters": COUNT,
    "iters_per_inner_epoch": COUNT,
    "use_dist_eval_sampler": Key(bool),
    "report_metric": Key(bool),
    "k_test": COUNT,
    "branch": Key(str, choices=("clip", "sam", "fused")),
    "num_ans_candidates": COUNT,
    "inference_method": Key(str),
    "prompt": Key(str),
}
LR_SCHEDULES = tuple(SCHEDULES)

# --- datasets: ---------------------------------------------------------------------------------

PROCESSOR_NAME: dict[str, Node] = {"name": Key(str, required=True, help="the registered processor")}
DATASET_KEYS: dict[str, Node] = {
    "type": Key(str),
    "data_type": Key(str, required=True, choices=("images",), help="always images"),
    "domain": Key(str, required=True, choices=DOMAINS, help="which branches its samples train"),
    "ratio": RATIO,
    "vis_processor": Key(dict, required=True, help="processors of the images"),
    "text_processor": Key(dict, required=True, help="processors of the captions"),
    "build_info": Key(dict, required=True, help="where the files are"),
}


def declared_keys(cls: type | None) -> dict[str, Node]:
    """Reads ``CONFIG_KEYS`` of a processor, builder, task or runner class.

    Args:
        cls: The class; its values may be types, tuples of types, or schema nodes. None and a class
            without the attribute declare nothing.

    Returns:
        A schema; plain types become keys that may also be null.
    """
    declared: dict[str, Any] = getattr(cls, "CONFIG_KEYS", None) or {}
    return {
        name: node if isinstance(node, (Key, Section, MapOf, Nullable)) else Nullable(Key(node))
        for name, node in declared.items()
    }
