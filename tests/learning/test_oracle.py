"""A text world small enough for value iteration: what is learned from all its texts is what the equations say.

Three letters and an end token, at most three tokens after the prompt, a letter: 40 texts, each with a random reward at
its end. Every token is tried everywhere, so that nothing is left to generalisation.
"""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from tokenq.learning.learner import Learner, Objective, Optimisation
from tokenq.learning.objectives import DQN, Soft, Vocabulary
from tokenq.learning.scaling import RawRewards
from tokenq.learning.sync import Polyak
from tokenq.learning.target import Target, TargetConfig
from tokenq.learning.values import Head, Logits, Raw
from tokenq.nets.language import LanguageQ, ValueHead
from tokenq.types import Batch, Episode

END, LENGTH, BETA, GAMMA = 3, 3, 0.5, 0.9
Text = tuple[int, ...]


def finished(text: Text) -> bool:
    return len(text) == LENGTH or END in text


TEXTS = [
    text
    for n in range(1, LENGTH + 1)
    for text in itertools.product(range(4), repeat=n)
    if finished(text) and not finished(text[:-1])
]
REWARDS = dict(zip(TEXTS, np.random.default_rng(0).uniform(-1, 1, len(TEXTS)), strict=True))


def optimum(before: Text, log_reference: Callable[[Text], np.ndarray] | None) -> tuple[np.ndarray, dict[Text, float]]:
    """Q of the four tokens after a text, and all values of finished steps below it; soft if there is a reference."""
    known: dict[Text, float] = {}
    q = np.zeros(4)
    for token in range(4):
        text = (*before, token)
        if finished(text):
            q[token] = REWARDS[text]
        else:
            below, deeper = optimum(text, log_reference)
            known |= deeper
            if log_reference is None:
                q[token] = GAMMA * below.max()
            else:
                q[token] = GAMMA * BETA * np.logaddexp.reduce(log_reference(text) + below / BETA)
        known[text] = q[token]
    return q, known


def learner_of(objective: Objective, updates: int, tiny: Callable[..., PreTrainedModel]) -> Learner:
    model = tiny("gpt2", vocabulary=4, hidden_size=32, initializer_range=0.1)
    torch.manual_seed(0)
    network = LanguageQ(model, ValueHead(32) if isinstance(objective.values, Head) else None)
    settings = Optimisation(learning_rate=5e-3, schedule="cosine", warmup_steps=10, max_steps=updates)
    target = Target(network, TargetConfig(Polyak(0.2)), 0)
    return Learner(network, objective, target, RawRewards(), settings, Accelerator(cpu=True))


@pytest.mark.parametrize(
    ("objective", "updates"),
    [
        (Soft(Logits(BETA), GAMMA, lam=0.0), 150),
        (Soft(Logits(BETA), GAMMA, lam=0.9), 150),
        (Soft(Head(BETA, samples=2, learning_rate=5e-3), GAMMA, lam=0.5), 400),
        (DQN(Raw(), Vocabulary(), GAMMA), 400),
    ],
    ids=["logits one step", "logits lambda", "head sampled", "textbook"],
)
def test_learned_values_are_those_of_value_iteration(
    objective: Soft | DQN,
    updates: int,
    tiny: Callable[..., PreTrainedModel],
    recorded: Callable[..., Batch],
    every_text: Callable[..., list[Episode]],
) -> None:
    learner = learner_of(objective, updates, tiny)
    episodes = every_text(REWARDS)
    batch = recorded(learner.network, episodes)
    model = tiny("gpt2", vocabulary=4, hidden_size=32, initializer_range=0.1).eval()

    def log_reference(text: Text) -> np.ndarray:
        tokens = torch.tensor([[0, *text]])
        logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
        return logits[0, -1].log_softmax(-1).detach().numpy()

    _, expected = optimum((), log_reference if isinstance(objective, Soft) else None)
    for _ in range(updates):
        learner.update(batch)
    with torch.no_grad():
        q = objective.values.q(learner.network(batch), batch)
    gaps = [abs(float(q[row, n]) - expected[text[: n + 1]]) for row, text in enumerate(TEXTS) for n in range(len(text))]
    assert max(gaps) < 0.03
    spread = np.ptp([expected[text[:1]] for text in TEXTS])
    assert spread > 0.2, "a world in which every first token is worth the same would prove nothing"
