"""What may stand in the ``model:`` section of a run configuration and of `from_config`, as data."""

from __future__ import annotations

from lavis_msmedcap.common.config_check import Key, Node, Nullable, Section
from lavis_msmedcap.datasets.records import DOMAINS
from lavis_msmedcap.models.encoders.build import CLIP_ENCODERS
from lavis_msmedcap.models.encoders.sam import SAM_INPUTS, TOKEN_LAYOUTS
from lavis_msmedcap.models.encoders.sam_sizes import SAM_SIZES
from lavis_msmedcap.models.quantization import QUANTIZATIONS
from lavis_msmedcap.models.weights import PRECISIONS

COUNT = Key(int, minimum=1)
PATH = Nullable(Key(str))

ENCODER_KEYS: dict[str, Node] = {
    "weights": Nullable(
        Key(str, help="the frozen encoder: path, address or name; null for random weights")
    ),
    "image_size": Key(int, required=True, minimum=1, help="side of the encoder's view in pixels"),
    "patch_size": Key(int, required=True, minimum=1, help="side of a patch in pixels"),
    "width": COUNT,
    "depth": COUNT,
    "num_heads": COUNT,
    "mlp_ratio": Key(float, above=0),
    "precision": Key(str, choices=tuple(PRECISIONS)),
}
CLIP_KEYS: dict[str, Node] = {
    "name": Key(str, required=True, choices=tuple(CLIP_ENCODERS), help="the encoder"),
    **ENCODER_KEYS,
    "freeze_ln": Key(bool),
}
SAM_KEYS: dict[str, Node] = {
    "name": Key(str, required=True, choices=("sam",), help="the encoder"),
    **ENCODER_KEYS,
    "size": Nullable(Key(str, choices=tuple(SAM_SIZES), help="stands for width, depth, ...")),
    "window_size": Key(int, minimum=0),
    "global_attn_indexes": Key(list, items=Key(int, minimum=0)),
    "out_chans": COUNT,
    "tokens": Key(str, choices=tuple(TOKEN_LAYOUTS)),
    "pool": COUNT,
    "input": Key(str, choices=SAM_INPUTS, help="raw, or authors for the authors' checkpoints"),
}
BRANCH_KEYS: dict[str, Node] = {
    "train_on": Key(
        list,
        required=True,
        items=Key(str, choices=DOMAINS),
        help="domains whose samples train the branch's Q-Former",
    ),
    "num_query_token": Key(int, required=True, minimum=1, help="number of learned queries"),
    "init": Key(str, help="scratch, blip2, bert, the other branch, or a checkpoint's path or name"),
}
BRANCHES = Section(
    {
        "clip": Nullable(Section({**BRANCH_KEYS, "encoder": Section(CLIP_KEYS, required=True)})),
        "sam": Nullable(Section({**BRANCH_KEYS, "encoder": Section(SAM_KEYS, required=True)})),
    },
    required=True,
    help="the branches clip and sam; null drops one",
)
QFORMER = Section(
    {
        "tokenizer": Key(str, required=True, help="folder with vocab.txt"),
        "hidden_size": COUNT,
        "num_layers": COUNT,
        "num_heads": COUNT,
        "intermediate_size": COUNT,
        "cross_attention_freq": COUNT,
        "dropout": Key(float, minimum=0, maximum=0.99),
        "initializer_range": Key(float, minimum=0, maximum=1),
        "precision": Key(str, choices=tuple(PRECISIONS)),
        "gradient_checkpointing": Key(bool),
    },
    required=True,
    help="sizes and tokenizer of the Q-Formers",
)
PRETRAINED = Section({"blip2": PATH, "bert": PATH}, help="files behind init: blip2 and init: bert")
MODEL_KEYS: dict[str, Node] = {
    "arch": Key(str, required=True, help="the registered model"),
    "model_type": Key(str, required=True, help="which packaged default it starts from"),
    "offline": Key(bool, help="true never downloads weights"),
    "load_finetuned": Key(bool),
    "finetuned": PATH,
    "pretrained": PRETRAINED,
    "branches": BRANCHES,
    "qformer": QFORMER,
    "max_txt_len": Key(int, required=True, minimum=1, help="longest text in tokens"),
}
WEIGHT = Key(float, minimum=0)
LORA_KEYS: dict[str, Node] = {
    "rank": Key(int, required=True, minimum=1, help="rank of the added matrices"),
    "alpha": Key(float, required=True, above=0, help="their product is scaled by alpha / rank"),
    "dropout": Key(float, minimum=0, maximum=0.99),
    "target_modules": Key(
        list, required=True, items=Key(str), help="names of layers, for example [q_proj, v_proj]"
    ),
}
MODEL_SCHEMAS: dict[str, dict[str, Node]] = {
    "blip2_dual_qformer": {
        **MODEL_KEYS,
        # [CLS], one word and [SEP]
        "max_txt_len": Key(int, required=True, minimum=3, help="longest text in tokens"),
        "embed_dim": Key(int, required=True, minimum=1, help="width of the contrastive space"),
        "loss_weights": Section({"itc": WEIGHT, "itm": WEIGHT, "lm": WEIGHT}),
    },
    "msmedcap": {
        **MODEL_KEYS,
        "stage1": PATH,
        "prompt": Key(str, required=True, help="text in front of the caption"),
        "apply_lemmatizer": Key(bool, help="predict_answers returns lemmas"),
        "llm": Section(
            {
                "weights": Key(str, required=True, help="folder of the frozen LLM"),
                "tokenizer": Key(str, required=True, help="folder of its tokenizer"),
                "precision": Key(str, choices=tuple(PRECISIONS)),
                "gradient_checkpointing": Key(bool),
                "quantization": Nullable(Key(str, choices=QUANTIZATIONS)),
                "lora": Nullable(Section(LORA_KEYS, help="trains the LLM; not in the paper")),
            },
            required=True,
            help="the frozen language model",
        ),
    },
}
