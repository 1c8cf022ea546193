"""The cached Q-Former against the pass over the whole text that ITG trains with."""

from __future__ import annotations

import pytest
import torch
from lavis_stage1 import LENGTH, START, VOCAB, make_branch

from lavis_msmedcap.models.qformer_cache import CachedQFormer


@pytest.mark.parametrize("copies", [1, 3])
@torch.no_grad()
def test_equals_a_full_pass_with_reordering(copies: int) -> None:
    branch = make_branch()
    generator = torch.Generator().manual_seed(4)
    image = branch.encode(torch.randn(2, 3, 32, 32, generator=generator), torch.empty(0))
    rows = 2 * copies
    text = torch.randint(5, VOCAB, (rows, LENGTH), generator=generator)
    text[:, 0] = START
    move = torch.arange(rows).view(2, copies).flip(1).flatten()  # within each image

    cached = CachedQFormer(branch.qformer, branch.query_tokens, image, START)
    logits = [cached.read_prompt(copies)]
    for step in range(1, LENGTH):
        if step == 4:
            cached.reorder(move)
            text[:, :4] = text[move, :4]
            logits = [earlier[move] for earlier in logits]
        logits.append(cached.read_tokens(text[:, step]))

    repeated = image.rows(torch.arange(2).repeat_interleave(copies))
    past = branch.query(repeated, use_cache=True).past_key_values
    expected = branch._generation_logits(text, torch.ones_like(text), past)
    torch.testing.assert_close(torch.stack(logits, dim=1), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 1e-2
