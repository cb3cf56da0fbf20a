"""Text under guidance: what `generate` draws from is what the formula says, token by token."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from tokenq.acting.explore import Boltzmann, Greedy
from tokenq.errors import ConfigError
from tokenq.nets.language import LanguageQ, trunk
from tokenq.nets.loading import Lora, with_adapter
from tokenq.nets.prior_guided import PriorGuided
from tokenq.nets.q_heads import QHeads

Tiny = Callable[..., PreTrainedModel]
PROMPTS = [[5], [1, 2, 3, 4, 5, 6], [7, 8, 9]]
NO_SOURCE: list[list[int]] = []
NEVER = [30]


def heads(beta: float = 3.0, top_k: int = 0, vocabulary: int = 31) -> QHeads:
    torch.manual_seed(5)
    made = QHeads(16, vocabulary, 2, False, beta, top_k)
    for head in made.q.values():
        torch.nn.init.normal_(head.outer.weight)
    return made


def greedy(logits: torch.Tensor) -> torch.Tensor:
    return Greedy().log_probabilities(logits, 0)


def scores(model: PreTrainedModel, guide: QHeads, tokens: list[int]) -> torch.Tensor:
    """log π_β + β·min Q after a text, without a cache and without hooks."""
    read = {"input_ids": torch.tensor([tokens]), "attention_mask": torch.ones(1, len(tokens), dtype=torch.long)}
    hidden, logits = trunk(model, read)[0, -1], model(**read).logits[0, -1]
    q = [head.outer(head.activated(hidden)) for head in guide.q.values()]
    return (logits.log_softmax(-1) + guide.beta * torch.minimum(*q)).detach()


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "gpt_neox", "gemma2", "cohere"])
def test_padded_prompts_and_the_cache_give_the_best_token_of_every_step(family: str, tiny: Tiny) -> None:
    model, guide = tiny(family).eval(), heads()
    network = LanguageQ(model, q_heads=guide)
    written = network.complete(PROMPTS, NO_SOURCE, greedy, 5, NEVER)
    for prompt, tokens in zip(PROMPTS, written, strict=True):
        for n, token in enumerate(tokens):
            found = scores(model, guide, [*prompt, *tokens[:n]])
            assert float(found.max() - found[token]) < 1e-3
    assert written != LanguageQ(model).complete(PROMPTS, NO_SOURCE, greedy, 5, NEVER)


def test_beta_zero_is_the_model_itself(tiny: Tiny) -> None:
    model = tiny("llama").eval()
    alone = LanguageQ(model).complete(PROMPTS, NO_SOURCE, greedy, 6, NEVER)
    assert LanguageQ(model, q_heads=heads(beta=0.0)).complete(PROMPTS, NO_SOURCE, greedy, 6, NEVER) == alone


def test_draws_follow_the_formula(tiny: Tiny) -> None:
    model, guide = tiny().eval(), heads(beta=0.5)
    torch.manual_seed(0)
    policy = Boltzmann(temperature=1.5)
    drawn = LanguageQ(model, q_heads=guide).complete(
        [[5]] * 4000, NO_SOURCE, lambda logits: policy.log_probabilities(logits, 0), 1, NEVER
    )
    expected = (scores(model, guide, [5]) / 1.5).softmax(-1)
    shares = torch.bincount(torch.tensor(drawn).flatten(), minlength=31) / 4000
    assert ((shares - expected).abs() < 5 * (expected * (1 - expected) / 4000).sqrt() + 1e-3).all()


def test_only_the_models_own_best_tokens_are_written_under_a_cut(tiny: Tiny) -> None:
    model = tiny().eval()
    network = LanguageQ(model, q_heads=heads(beta=1000.0, top_k=2))
    for prompt in PROMPTS:
        (token,) = network.complete([prompt], NO_SOURCE, greedy, 1, NEVER)[0]
        assert token in model(torch.tensor([prompt])).logits[0, -1].topk(2).indices


def test_with_transformers_alone(tiny: Tiny) -> None:
    model, guide = tiny("llama").eval(), heads()
    expected = LanguageQ(model, q_heads=guide).complete([PROMPTS[1]], NO_SOURCE, greedy, 6, NEVER)[0]
    with PriorGuided(model, guide) as processor:
        text = model.generate(
            torch.tensor([PROMPTS[1]]), logits_processor=[processor], max_new_tokens=6, do_sample=False, eos_token_id=30
        )
    assert text[0, 6:].tolist() == expected
    hooks = [module for module in model.modules() if module._forward_hooks]
    assert hooks == []


def test_outside_its_block_it_is_refused(tiny: Tiny) -> None:
    processor = PriorGuided(tiny(), heads())
    with pytest.raises(ConfigError, match="inside its `with` block"):
        processor(torch.tensor([[1]]), torch.zeros(1, 31))


def test_adapters_are_guided(tiny: Tiny) -> None:
    adapted = with_adapter(tiny("llama"), Lora(r=4, alpha=64, target_modules=["q_proj", "v_proj"])).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    network = LanguageQ(adapted, q_heads=heads())
    (tokens,) = network.complete([PROMPTS[1]], NO_SOURCE, greedy, 3, NEVER)
    assert tokens[0] == int(scores(network.causal, network.q_heads, PROMPTS[1]).argmax())


def test_a_decoder_that_reads_an_encoder_is_guided(encoder_decoder: PreTrainedModel) -> None:
    model = encoder_decoder
    guide, source = heads(), [7, 8, 9, 10]
    (tokens,) = LanguageQ(model, q_heads=guide).complete([[0]], [source], greedy, 4, NEVER)
    before = [0]
    for token in tokens:
        read = {"input_ids": torch.tensor([source]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
        decoder = {"decoder_input_ids": torch.tensor([before])}
        mask = {"decoder_attention_mask": torch.ones(1, len(before), dtype=torch.long)}
        hidden = trunk(model, read | decoder | mask)[:, -1]
        logits = model(**read, **decoder).logits[:, -1].detach()
        found = guide.guided(logits, hidden)
        assert float(found.max() - found[0, token]) < 1e-3
        before.append(token)
