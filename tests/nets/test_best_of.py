"""The best of several completions by Q: against Q by hand, and what has no Q to choose by."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from tokenq.errors import ConfigError
from tokenq.nets.architectures import EncoderDecoder
from tokenq.nets.best_of import BestOf
from tokenq.nets.language import LanguageQ, trunk
from tokenq.nets.q_heads import QHeads
from tokenq.nets.tokenizers import Words

Tiny = Callable[..., PreTrainedModel]
PROMPTS = [[5], [1, 2, 3, 4, 5, 6], [7, 8, 9]]
NO_SOURCE: list[list[int]] = []
ENDS = [30]


def network(model: PreTrainedModel) -> LanguageQ:
    torch.manual_seed(5)
    heads = QHeads(16, model.config.vocab_size, 2, False, beta=0.0)
    for head in heads.q.values():
        torch.nn.init.normal_(head.outer.weight)
    return LanguageQ(model.eval(), q_heads=heads)


def uniform(logits: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(logits).log_softmax(-1)


@torch.no_grad()
def q_by_hand(made: LanguageQ, prompt: list[int], said: list[int]) -> float:
    """Min Q of the last token, from a text alone in its batch."""
    read = torch.tensor([[*prompt, *said[:-1]]])
    hidden = trunk(made.causal, {"input_ids": read, "attention_mask": torch.ones_like(read)})[0, -1]
    assert made.q_heads is not None
    return min(float(head.outer(head.activated(hidden))[said[-1]]) for head in made.q_heads.q.values())


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_the_one_with_the_largest_q_is_written(family: str, tiny: Tiny) -> None:
    made = network(tiny(family))
    torch.manual_seed(0)
    drawn = [made.complete(PROMPTS, NO_SOURCE, uniform, 4, ENDS) for _ in range(6)]
    torch.manual_seed(0)
    best = BestOf(made, 6).complete(PROMPTS, NO_SOURCE, uniform, 4, ENDS)
    for i, prompt in enumerate(PROMPTS):
        assert best[i] == max((one[i] for one in drawn), key=lambda said: q_by_hand(made, prompt, said))
    assert best != drawn[0]


def test_an_encoder_reads_its_source() -> None:
    torch.manual_seed(0)
    tokenizer = Words().train(["a few words to learn"], EncoderDecoder.frame, sentinels=False)
    made = BestOf(network(EncoderDecoder(layers=1, width=16, heads=2).build(tokenizer)), 2)
    begin, said = [[0], [0]], [[4, 3], [4, 3]]
    here, there = made.worth(begin, [[3, 2, 1], [4]], said), made.worth(begin, [[4], [4]], said)
    assert here[0] != there[0] and torch.allclose(here[1], there[1], atol=1e-5)


def test_without_q_heads_nothing_is_best(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="candidates: got 4 for a model without Q heads"):
        BestOf(LanguageQ(tiny("gpt2")), 4)
