"""LAVIS' own BLIP-2 models, built by their own constructors at the sizes of `tiny_models`.

Only what would be downloaded is replaced: tokenizer, encoder weights and BERT.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from lavis.models.blip2_models.blip2 import LayerNorm
from lavis.models.blip2_models.blip2_opt import Blip2OPT
from lavis.models.blip2_models.blip2_qformer import Blip2Qformer
from lavis.models.blip2_models.Qformer import BertConfig, BertLMHeadModel
from lavis.models.eva_vit import VisionTransformer
from torch import nn
from torch.nn import Parameter

from lavis_msmedcap.models.build import load_text_tokenizer, qformer_size


def lavis_stage1(settings: dict[str, Any], branch: str = "clip") -> Blip2Qformer:
    """Builds ``Blip2Qformer`` with the sizes of one branch of our settings."""
    model = _tiny(Blip2Qformer, settings, branch)
    return model(
        num_query_token=settings["branches"][branch]["num_query_token"],
        cross_attention_freq=settings["qformer"]["cross_attention_freq"],
        embed_dim=settings["embed_dim"],
    ).float()


def lavis_stage2(settings: dict[str, Any], branch: str = "clip") -> Blip2OPT:
    """Builds ``Blip2OPT`` with the sizes of one branch of our settings."""
    model = _tiny(Blip2OPT, settings, branch)
    return model(
        num_query_token=settings["branches"][branch]["num_query_token"],
        opt_model=settings["llm"]["weights"],
        prompt=settings["prompt"],
        max_txt_len=settings["max_txt_len"],
    ).float()


def _tiny(base: type, settings: dict[str, Any], branch: str) -> Any:
    tokenizer = load_text_tokenizer(settings["qformer"]["tokenizer"])
    size = qformer_size(settings["qformer"], len(tokenizer))
    encoder = settings["branches"][branch]["encoder"]

    class Tiny(base):  # type: ignore[misc]
        @classmethod
        def init_tokenizer(cls) -> Any:
            return tokenizer

        @classmethod
        def init_vision_encoder(cls, *_: Any) -> tuple[nn.Module, nn.Module]:
            vit = VisionTransformer(
                img_size=encoder["image_size"],
                patch_size=encoder["patch_size"],
                use_mean_pooling=False,
                embed_dim=encoder["width"],
                depth=encoder["depth"],
                num_heads=encoder["num_heads"],
                mlp_ratio=encoder["mlp_ratio"],
                qkv_bias=True,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
            )
            vit.num_features = encoder["out_chans"] if branch == "sam" else encoder["width"]
            return vit, LayerNorm(vit.num_features)

        @classmethod
        def init_Qformer(  # noqa: N802
            cls, num_query_token: int, width: int, cross_attention_freq: int = 2
        ) -> tuple[nn.Module, Parameter]:
            config = BertConfig(
                vocab_size=size.vocab_size - 1,  # LAVIS adds [DEC] itself
                hidden_size=size.hidden_size,
                num_hidden_layers=size.num_layers,
                num_attention_heads=size.num_heads,
                intermediate_size=size.intermediate_size,
                pad_token_id=0,
            )
            config.encoder_width = width
            config.add_cross_attention = True
            config.cross_attention_freq = cross_attention_freq
            config.query_length = num_query_token
            queries = nn.init.normal_(
                Parameter(nn.Parameter().new_empty(1, num_query_token, size.hidden_size))
            )
            return BertLMHeadModel(config), queries

    return Tiny
