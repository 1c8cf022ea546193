"""Captions per second: our decode loop against LAVIS' ``Blip2OPT.generate``, on the same modules.

python benchmarks/decoding.py [--batch 16] [--beams 5] [--rounds 5]

Both write captions for the same images with the demo captioner's weights without its SAM branch,
which LAVIS has no place for. LAVIS generates under transformers 4.26 only.
"""

from __future__ import annotations

import argparse

import torch
from _common import interleaved, machine
from lavis.models import load_model
from lavis.models.blip2_models.blip2_opt import Blip2OPT
from torch import nn

from lavis_msmedcap.models.msmedcap import MSMedCap


def blip2_of(model: MSMedCap) -> Blip2OPT:
    """Puts the modules of our CLIP branch into LAVIS' class."""
    blip2 = Blip2OPT.__new__(Blip2OPT)
    nn.Module.__init__(blip2)
    blip2.visual_encoder, blip2.ln_vision = model.visual_encoder, model.ln_vision
    blip2.Qformer, blip2.query_tokens = model.Qformer, model.query_tokens
    blip2.opt_proj, blip2.opt_model = model.opt_proj, model.opt_model
    blip2.opt_tokenizer, blip2.eos_token_id = model.opt_tokenizer, model.eos_token_id
    blip2.prompt, blip2.max_txt_len = model.prompt, model.max_txt_len
    return blip2.eval()


def main() -> None:
    """Prints seconds per batch and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = load_model("msmedcap", "demo", is_eval=True)
    del model.branches["sam"]
    blip2 = blip2_of(model)
    torch.manual_seed(0)
    image = torch.randn(arguments.batch, 3, 64, 64)
    settings = {"num_beams": arguments.beams, "max_length": 30, "min_length": 30}
    ours = model.generate({"image": image}, **settings)
    theirs = blip2.generate({"image": image}, **settings)
    equal = sum(a == b for a, b in zip(ours, theirs))
    seconds = interleaved(
        {
            "LAVIS": lambda: blip2.generate({"image": image}, **settings),
            "ours": lambda: model.generate({"image": image}, **settings),
        },
        arguments.rounds,
    )
    print(f"{machine()}; batch {arguments.batch}, {arguments.beams} beams, 30 tokens")
    print(f"equal captions: {equal} of {arguments.batch}")
    for name, value in seconds.items():
        print(f"{name:<6} {value:8.3f} s per batch (median of {arguments.rounds})")
    print(f"ratio  {seconds['LAVIS'] / seconds['ours']:8.1f} times faster")


if __name__ == "__main__":
    main()
