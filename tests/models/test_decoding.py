"""The decode loop: its rules, its independence of the batch, and what it asks of the network."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lavis_msmedcap.models.decoding import generate
from lavis_msmedcap.models.decoding_policies import Finished
from lavis_msmedcap.models.llm_cache import CachedLlm
from lavis_msmedcap.models.logits import (
    forbid_token,
    keep_nucleus,
    keep_top_k,
    penalize_repetition,
)
from lavis_msmedcap.models.opt import build_opt

PREFIX, WIDTH, VOCABULARY, PAD, BOS = 5, 32, 100, 1, 2


def tiny_opt(seed: int, vocabulary: int = VOCABULARY, **overrides: object):
    """OPT with weights large enough that its tokens differ from step to step."""
    torch.manual_seed(seed)
    config = {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "word_embed_proj_dim": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "max_position_embeddings": 64,
        "init_std": 0.25,
        **overrides,
    }
    return build_opt(config).eval()


def prompt_batch(lengths: list[int], vocabulary: int = VOCABULARY):
    """Random prompts of the given lengths, </s> first, padded on the left."""
    width = max(lengths)
    ids = torch.randint(3, vocabulary, (len(lengths), width))
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, : width - length] = PAD
        ids[row, width - length] = BOS
        mask[row, width - length :] = 1
    return ids, mask


def greedy(opt, prefix, ids, mask, **rules):
    settings = {"num_beams": 1, "eos_token_id": 3, "pad_token_id": PAD, "max_new_tokens": 10}
    return generate(opt, prefix, ids, mask, **{**settings, **rules})


def frequent_end(opt, prefix, ids, mask) -> int:
    """A token that this model likes, so that captions end at different steps."""
    rows = greedy(opt, prefix, ids, mask, eos_token_id=0, min_length=20, max_new_tokens=20)
    return Counter(token for row in rows for token in row[2:]).most_common(3)[-1][0]


class TestScores:
    @pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.99])
    def test_nucleus_is_that_of_hugging_face(self, top_p: float) -> None:
        torch.manual_seed(0)
        scores = 4 * torch.randn(64, 500)
        assert torch.equal(keep_nucleus(scores, top_p), TopPLogitsWarper(top_p)(None, scores))

    def test_nucleus_after_top_k_is_that_of_hugging_face(self) -> None:
        torch.manual_seed(1)
        scores = 2 * torch.randn(64, 500)
        theirs = TopPLogitsWarper(0.9)(None, TopKLogitsWarper(50)(None, scores))
        assert torch.equal(keep_nucleus(keep_top_k(scores, 50), 0.9), theirs)

    def test_nucleus_reaches_top_p_and_is_smallest(self) -> None:
        torch.manual_seed(2)
        scores = 3 * torch.randn(32, 200)
        kept = keep_nucleus(scores, 0.8).isfinite()
        probabilities = scores.softmax(-1)
        mass = (probabilities * kept).sum(-1)
        least = probabilities.masked_fill(~kept, 2.0).min(-1).values
        assert (mass >= 0.8 - 1e-6).all()
        assert (mass - least < 0.8 + 1e-6).all()

    def test_nucleus_never_empty(self) -> None:
        scores = torch.tensor([[0.0, 5.0, 1.0]])
        assert keep_nucleus(scores, 1e-9).isfinite().tolist() == [[False, True, False]]

    def test_repetition_penalty_is_that_of_hugging_face(self) -> None:
        torch.manual_seed(3)
        scores, history = torch.randn(8, 50), torch.randint(0, 50, (8, 12))
        theirs = RepetitionPenaltyLogitsProcessor(1.5)(history, scores.clone())
        assert torch.equal(penalize_repetition(scores, history, 1.5), theirs)

    def test_forbid_token_touches_its_rows_only(self) -> None:
        scores = torch.zeros(2, 3)
        forbidden = forbid_token(scores, 1, torch.tensor([True, False]))
        assert forbidden.tolist() == [[0.0, float("-inf"), 0.0], [0.0, 0.0, 0.0]]
        assert (scores == 0).all()


class TestCache:
    def test_equals_a_full_pass_with_padding_and_reordering(self) -> None:
        opt = tiny_opt(0)
        ids, mask = prompt_batch([2, 6])
        prefix = torch.randn(2, PREFIX, WIDTH)
        new = torch.randint(3, VOCABULARY, (4, 3))
        rows = torch.tensor([1, 1, 3, 2])
        with torch.no_grad():
            cached = CachedLlm(opt, prefix, ids, mask, max_new_tokens=4)
            cached.read_prompt(copies=2)
            cached.read_tokens(new[:, 0])
            cached.reorder(rows)
            cached.read_tokens(new[:, 1])
            got = cached.read_tokens(new[:, 2])
            for row, (image, length) in enumerate([(0, 2), (0, 2), (1, 6), (1, 6)]):
                text = torch.cat([ids[image, -length:], new[rows[row], :1], new[row, 1:]])
                embeds = opt.get_input_embeddings()(text[None])
                full = opt(inputs_embeds=torch.cat([prefix[image : image + 1], embeds], 1))
                torch.testing.assert_close(got[row], full.logits[0, -1], atol=1e-5, rtol=1e-5)

    def test_prefix_passes_once_per_image_then_one_token_per_beam(self) -> None:
        opt, shapes = tiny_opt(1), []
        opt.model.decoder.layers[0].register_forward_pre_hook(
            lambda _module, args, kwargs: shapes.append(
                (args or (kwargs["hidden_states"],))[0].shape
            ),
            with_kwargs=True,
        )
        ids, mask = prompt_batch([3, 3])
        generate(
            opt,
            torch.randn(2, PREFIX, WIDTH),
            ids,
            mask,
            num_beams=4,
            max_new_tokens=5,
            min_length=8,
            eos_token_id=3,
            pad_token_id=PAD,
        )
        assert shapes[0] == (2, PREFIX + 3, WIDTH)
        assert set(shapes[1:]) == {(8, 1, WIDTH)}
        assert len(shapes) == 5


class TestBatchIndependence:
    """Alone and in a batch the same tokens come out.

    Rows of batches of different size are rounded differently in float32 (about 1e-6 in a logit), so
    this would fail only where two candidates are closer than that; random weights keep them apart.
    """

    @pytest.mark.parametrize("seed", range(20))
    @pytest.mark.parametrize("num_beams", [1, 4])
    def test_alone_and_together(self, seed: int, num_beams: int) -> None:
        opt = tiny_opt(seed)
        lengths = torch.randint(1, 9, (4,)).tolist()
        ids, mask = prompt_batch(lengths)
        prefix = torch.randn(4, PREFIX, WIDTH)
        settings = {
            "num_beams": num_beams,
            "max_new_tokens": 12,
            "min_length": [1, 8][seed % 2],
            "repetition_penalty": [1.0, 1.5][seed // 2 % 2],
            "length_penalty": [1.0, -1.0, 2.0][seed % 3],
            "num_return_sequences": min(num_beams, 2),
            "eos_token_id": frequent_end(opt, prefix, ids, mask) if seed else 3,
            "pad_token_id": PAD,
        }
        together = generate(opt, prefix, ids, mask, **settings)
        alone = []
        for row, length in enumerate(lengths):
            one = slice(row, row + 1)
            alone += generate(opt, prefix[one], ids[one, -length:], mask[one, -length:], **settings)
        assert together == alone

    def test_captions_end_at_different_steps(self) -> None:
        """Guards the test above: without early ends it would show little."""
        ends = Counter()
        for seed in range(5):
            opt = tiny_opt(seed)
            ids, mask = prompt_batch([3, 5, 1, 2])
            prefix = torch.randn(4, PREFIX, WIDTH)
            eos = frequent_end(opt, prefix, ids, mask)
            for num_beams in (1, 4):
                rows = greedy(opt, prefix, ids, mask, eos_token_id=eos, num_beams=num_beams)
                ends.update(len(row) for row in rows)
        assert len(ends) > 3

    @pytest.mark.parametrize("num_beams", [1, 4])
    def test_what_ended_captions_are_fed_does_not_matter(self, num_beams: int) -> None:
        opt = tiny_opt(4)
        ids, mask = prompt_batch([3, 5, 1, 2])
        prefix = torch.randn(4, PREFIX, WIDTH)
        eos = frequent_end(opt, prefix, ids, mask)
        rules = {"num_beams": num_beams, "eos_token_id": eos, "repetition_penalty": 1.3}
        one = greedy(opt, prefix, ids, mask, **{**rules, "pad_token_id": 1})
        assert one == greedy(opt, prefix, ids, mask, **{**rules, "pad_token_id": 50})


class TestRules:
    def test_greedy_takes_the_best_token_of_a_full_pass(self) -> None:
        opt = tiny_opt(5)
        ids, mask = prompt_batch([4])
        prefix = torch.randn(1, PREFIX, WIDTH)
        text = ids
        for _ in range(6):
            embeds = torch.cat([prefix, opt.get_input_embeddings()(text)], 1)
            best = opt(inputs_embeds=embeds).logits[:, -1].argmax(-1)
            text = torch.cat([text, best[:, None]], 1)
        expected = text[0, 4:].tolist()
        assert greedy(opt, prefix, ids, mask, max_new_tokens=6, eos_token_id=0) == [expected]

    def test_beam_search_finds_the_best_of_all_captions(self) -> None:
        """With enough beams to keep everything, against an enumeration of all captions."""
        size, steps, eos, penalty = 5, 3, 3, 0.7
        opt = tiny_opt(6, vocabulary=size)
        ids, mask = prompt_batch([2], vocabulary=size)
        prefix = torch.randn(1, PREFIX, WIDTH)
        scored = []
        for length in range(steps + 1):
            for caption in itertools.product([t for t in range(size) if t != eos], repeat=length):
                tokens = [*caption, *([eos] if length < steps else [])]
                text = torch.cat([ids[0], torch.tensor(tokens, dtype=torch.long)])[None]
                embeds = torch.cat([prefix, opt.get_input_embeddings()(text)], 1)
                logs = opt(inputs_embeds=embeds).logits[0].log_softmax(-1)
                places = range(PREFIX + 1, PREFIX + 1 + len(tokens))
                total = sum(float(logs[place, token]) for place, token in zip(places, tokens))
                scored.append((total / (2 + length) ** penalty, list(caption)))
        expected = [caption for _, caption in sorted(scored, reverse=True)[:3]]
        got = generate(
            opt,
            prefix,
            ids,
            mask,
            num_beams=100,
            num_return_sequences=3,
            max_new_tokens=steps,
            length_penalty=penalty,
            eos_token_id=eos,
            pad_token_id=PAD,
        )
        assert got == expected

    def test_min_length_counts_each_samples_own_prompt(self) -> None:
        opt = tiny_opt(7)
        opt.lm_head.weight = torch.nn.Parameter(torch.zeros_like(opt.lm_head.weight))
        ids, mask = prompt_batch(
            [1, 3, 6]
        )  # all logits equal: the end token, id 0, wins if allowed
        rows = greedy(opt, torch.randn(3, PREFIX, WIDTH), ids, mask, eos_token_id=0, min_length=5)
        assert [len(row) for row in rows] == [4, 2, 0]

    @pytest.mark.parametrize("num_beams", [1, 4])
    def test_padding_is_not_penalized_as_repetition(self, num_beams: int) -> None:
        opt = tiny_opt(8)
        ids, mask = prompt_batch([2, 6])
        prefix = torch.randn(2, PREFIX, WIDTH)
        rules = {"repetition_penalty": 1.8, "num_beams": num_beams, "eos_token_id": 0}
        alone = greedy(opt, prefix[:1], ids[:1, 4:], mask[:1, 4:], **rules)[0]
        ids[0, :4] = torch.tensor(alone[:4])  # as padding: just what the caption wants to say
        assert greedy(opt, prefix, ids, mask, **rules)[0] == alone

    def test_finished_captions_keep_the_first_of_equals(self) -> None:
        finished = Finished(capacity=2, length_penalty=1.0)
        for caption, score in (([1], -4.0), ([2], -2.0), ([3], -4.0)):
            finished.add(caption, score, length=2)
        assert finished.best(2) == [[2], [1]]
        assert finished.cannot_improve(-4.0, 2)
        assert not finished.cannot_improve(-3.9, 2)

    def test_half_precision_runs(self) -> None:
        opt = tiny_opt(9).to(torch.bfloat16)
        ids, mask = prompt_batch([2, 6])
        rows = greedy(opt, torch.randn(2, PREFIX, WIDTH), ids, mask, num_beams=3)
        assert len(rows) == 2

    def test_empty_batch(self) -> None:
        nothing = torch.zeros(0, 3, dtype=torch.long)
        assert greedy(tiny_opt(0), torch.zeros(0, PREFIX, WIDTH), nothing, nothing) == []


class TestSampling:
    def test_same_generator_same_captions(self) -> None:
        opt = tiny_opt(10)
        ids, mask = prompt_batch([2, 5])
        prefix = torch.randn(2, PREFIX, WIDTH)
        draws = [
            greedy(
                opt,
                prefix,
                ids,
                mask,
                do_sample=True,
                temperature=2.0,
                num_return_sequences=3,
                generator=torch.Generator().manual_seed(seed),
            )
            for seed in (1, 1, 2)
        ]
        assert draws[0] == draws[1] != draws[2]
        assert len(draws[0]) == 6

    @pytest.mark.parametrize(("top_p", "top_k"), [(0.7, 0), (1.0, 4), (0.9, 6)])
    def test_frequencies_are_those_of_the_masked_distribution(
        self, top_p: float, top_k: int
    ) -> None:
        opt, draws, temperature = tiny_opt(11), 20000, 1.7
        ids, mask = prompt_batch([3])
        prefix = torch.randn(1, PREFIX, WIDTH)
        rows = greedy(
            opt,
            prefix,
            ids,
            mask,
            do_sample=True,
            top_p=top_p,
            top_k=top_k,
            temperature=temperature,
            max_new_tokens=1,
            num_return_sequences=draws,
            eos_token_id=99,
            generator=torch.Generator().manual_seed(0),
        )
        embeds = torch.cat([prefix, opt.get_input_embeddings()(ids)], 1)
        scores = opt(inputs_embeds=embeds).logits[:, -1].detach() / temperature
        if top_k:
            scores = TopKLogitsWarper(top_k)(None, scores)
        if top_p < 1:
            scores = TopPLogitsWarper(top_p)(None, scores)
        expected = scores.softmax(-1)[0]
        counts = torch.bincount(
            torch.tensor([row[0] if row else 99 for row in rows]), minlength=100
        )
        assert (counts[expected == 0] == 0).all()
        assert int((expected > 0).sum()) > 2
        error = (expected * (1 - expected) / draws).sqrt()
        assert ((counts / draws - expected).abs() <= 4.5 * error + 1e-9).all()


class TestRefusals:
    @pytest.mark.parametrize(
        ("rules", "message"),
        [
            ({"num_return_sequences": 2}, "num_return_sequences is 2 with num_beams 1"),
            ({"num_beams": 0}, "num_beams is 0"),
            ({"max_new_tokens": 0}, "max_new_tokens is 0"),
            ({"min_length": 20}, "min_length is 20"),
            ({"max_new_tokens": 60}, "the LLM has 64; lower max_new_tokens to at most "),
            ({"do_sample": True, "top_p": 0.0}, "top_p is 0"),
            ({"do_sample": True, "temperature": 0.0}, "temperature is 0"),
            ({"do_sample": True, "top_k": -1}, "top_k is -1"),
        ],
    )
    def test_arguments(self, rules: dict, message: str) -> None:
        ids, mask = prompt_batch([2])
        with pytest.raises(ValueError, match=message):
            greedy(tiny_opt(0), torch.randn(1, PREFIX, WIDTH), ids, mask, **rules)

    def test_padding_on_the_right(self) -> None:
        ids, mask = prompt_batch([2, 4])
        with pytest.raises(ValueError, match="padding on the left"):
            greedy(tiny_opt(0), torch.randn(2, PREFIX, WIDTH), ids.flip(1), mask.flip(1))

    def test_batches_that_do_not_belong_together(self) -> None:
        ids, mask = prompt_batch([2, 4])
        with pytest.raises(ValueError, match="do not belong together"):
            greedy(tiny_opt(0), torch.randn(3, PREFIX, WIDTH), ids, mask)
