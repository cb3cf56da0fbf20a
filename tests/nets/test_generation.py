"""Completions: padding, end tokens, and who decides what is drawn."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from tokenq.acting.explore import Boltzmann, Greedy
from tokenq.nets.generation import complete
from tokenq.nets.language import plain
from tokenq.nets.loading import Lora, with_adapter

Tiny = Callable[..., PreTrainedModel]
PROMPTS = [[5], [1, 2, 3, 4, 5, 6], [7, 8, 9]]
NO_SOURCE: list[list[int]] = []


def greedy(logits: torch.Tensor) -> torch.Tensor:
    return Greedy().log_probabilities(logits, 0)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "opt", "gpt_neox", "gemma2"])
def test_left_padding_changes_nothing_for_greedy(family: str, tiny: Tiny) -> None:
    model = tiny(family).eval()
    together = complete(model, PROMPTS, NO_SOURCE, greedy, 8, [0])
    alone = [complete(model, [prompt], NO_SOURCE, greedy, 8, [0])[0] for prompt in PROMPTS]
    assert together == alone
    assert len({tuple(tokens) for tokens in together}) == 3


def test_greedy_is_the_argmax_of_the_logits_step_by_step(tiny: Tiny) -> None:
    model = tiny("llama").eval()
    tokens = list(PROMPTS[1])
    for _ in range(6):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    # No end token: 30 never comes up.
    assert complete(model, [PROMPTS[1]], NO_SOURCE, greedy, 6, [30]) == [tokens[6:]]


@pytest.mark.parametrize("ends", [[3], [9, 3]])
def test_a_completion_stops_after_its_end_token_and_keeps_it(ends: list[int], tiny: Tiny) -> None:
    """Row 0 says 4, 3, ... and row 1 only 4: the first ends at its second token, the other at the limit."""
    step = iter(range(10))

    def scripted(logits: torch.Tensor) -> torch.Tensor:
        wanted = [3 if next(step) == 1 else 4, 4]
        return torch.full_like(logits, -torch.inf).index_put((torch.arange(2), torch.tensor(wanted)), torch.zeros(2))

    assert complete(tiny().eval(), [[1], [1, 2]], NO_SOURCE, scripted, 4, ends) == [[4, 3], [4, 4, 4, 4]]


def test_the_generation_config_of_the_model_has_no_say(tiny: Tiny) -> None:
    model = tiny("llama").eval()
    expected = complete(model, PROMPTS, NO_SOURCE, greedy, 6, [30])
    own = model.generation_config
    own.repetition_penalty, own.suppress_tokens, own.min_new_tokens, own.top_k = 50.0, expected[0], 5, 1
    assert complete(model, PROMPTS, NO_SOURCE, greedy, 6, [30]) == expected
    assert model.generation_config is own and own.repetition_penalty == 50.0


def test_draws_follow_the_policy_and_the_seed(tiny: Tiny) -> None:
    model = tiny().eval()
    policy = Boltzmann(temperature=0.7)
    torch.manual_seed(0)
    drawn = complete(model, [[5]] * 4000, NO_SOURCE, lambda logits: policy.log_probabilities(logits, 0), 1, [30])
    torch.manual_seed(0)
    again = complete(model, [[5]] * 4000, NO_SOURCE, lambda logits: policy.log_probabilities(logits, 0), 1, [30])
    assert drawn == again
    expected = (model(torch.tensor([[5]])).logits[0, -1] / 0.7).softmax(-1).detach()
    shares = torch.bincount(torch.tensor(drawn).flatten(), minlength=31) / 4000
    assert ((shares - expected).abs() < 5 * (expected * (1 - expected) / 4000).sqrt() + 1e-3).all()


def test_adapters_speak(tiny: Tiny) -> None:
    adapted = with_adapter(tiny("llama"), Lora(r=4, alpha=64, target_modules=["q_proj", "v_proj"])).eval()
    silent = complete(plain(adapted), PROMPTS, NO_SOURCE, greedy, 8, [30])
    assert silent == complete(tiny("llama").eval(), PROMPTS, NO_SOURCE, greedy, 8, [30])
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    assert complete(plain(adapted), PROMPTS, NO_SOURCE, greedy, 8, [30]) != silent
