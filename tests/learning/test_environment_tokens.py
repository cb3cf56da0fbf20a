"""What the environment says is read and never learned: no loss sends a gradient to where it would be predicted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tokenq.learning.held import Held
from tokenq.learning.learner import Learner
from tokenq.learning.objectives import DQN, DoubleDQN, Soft
from tokenq.learning.offline import CQL, ILQL, MC
from tokenq.learning.values import Head, Logits
from tokenq.nets.language import LanguageQ
from tokenq.nets.likelihood import decision_loss, next_token_loss
from tokenq.nets.loading import PLAIN
from tokenq.nets.tokenizers import Characters
from tokenq.replay.codecs import Joint
from tokenq.replay.offline import episodes_from_rows
from tokenq.types import Batch, Episode

LETTERS = "abcdefgh"
OBJECTIVES = {
    "soft, logits": Soft(Logits(), lam=0.5),
    "soft, logits, held": Soft(Logits(), held=Held(k=4)),
    "soft, head": Soft(Head(), lam=0.5),
    "soft, head, whole softmax": Soft(Head(samples=0)),
    "dqn": DQN(),
    "double_dqn": DoubleDQN(),
    "ilql": ILQL(),
    "cql": CQL(),
    "mc": MC(),
}
every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
both_kinds = pytest.mark.parametrize("family", ["llama", "gemma2"])
"""Hidden states times an output matrix, and whole tensors of logits."""


def talk(heard: str, terminated: bool) -> Episode:
    """Two turns; the environment speaks before each, and after the second one if the talk was cut off."""
    tokenizer = Characters().train([LETTERS], "bare", sentinels=False)
    tokenizer.chat_template = PLAIN
    said = [("user", "ab"), ("assistant", "cde"), ("user", heard), ("assistant", "fg"), ("user", "hh")]
    messages = [{"role": role, "content": text} for role, text in said[: None if not terminated else -1]]
    row = {"messages": messages, "rewards": [1.0, -2.0], "terminated": terminated}
    (episode,) = episodes_from_rows([row], Joint(tokenizer, [tokenizer.eos_token_id]), "log", None)
    return episode


class Watch:
    """Keeps what the logits are made of at every token of a text: the logits, or the last hidden states."""

    def __init__(self, network: LanguageQ) -> None:
        self.seen: list[Tensor] = []
        watched = network.causal.base_model if network.factored else network.causal
        watched.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        kept = output.logits if "logits" in output else output.last_hidden_state
        if kept.requires_grad:
            kept.retain_grad()
            self.seen.append(kept)

    def moved(self) -> np.ndarray:
        """Which tokens' predictions have a gradient that is not exactly zero."""
        (kept,) = self.seen
        assert kept.grad is not None and kept.grad.isfinite().all()
        return kept.grad[0].ne(0).any(-1).numpy()


def only_at_decisions(moved: np.ndarray, episode: Episode) -> bool:
    """Whether some decision is learned, in each of the turns, and nothing else is."""
    decisions = episode.decisions
    turns = np.split(moved[decisions - 1], np.flatnonzero(np.diff(decisions) > 1) + 1)
    return len(turns) == 2 and all(turn.any() for turn in turns) and not np.delete(moved, decisions - 1).any()


@every_objective
@both_kinds
@pytest.mark.parametrize("terminated", [True, False])
def test_no_gradient_where_the_environment_would_be_predicted(
    objective: Any,
    family: str,
    terminated: bool,
    learner_for: Callable[..., Learner],
    recorded: Callable[..., Batch],
) -> None:
    learner, episode = learner_for(objective, family=family, vocabulary=5 + len(LETTERS)), talk("ba", terminated)
    watch = Watch(learner.network)
    learner.update(recorded(LanguageQ(learner.network.model), [episode], objective.plausible))
    assert len(episode.tokens) > len(episode.decisions) + 4
    assert only_at_decisions(watch.moved(), episode)


@both_kinds
def test_fine_tuning_neither(family: str, tiny: Callable[..., PreTrainedModel], recorded: Callable[..., Batch]) -> None:
    network, episode = LanguageQ(tiny(family, 5 + len(LETTERS))), talk("ba", terminated=False)
    watch = Watch(network)
    decision_loss(network, recorded(network, [episode])).backward()
    assert only_at_decisions(watch.moved(), episode)
    watch.seen.clear()
    next_token_loss(network, [torch.from_numpy(episode.tokens)]).backward()
    assert not only_at_decisions(watch.moved(), episode), "pretraining learns what the environment says"


def twins(*networks: LanguageQ) -> None:
    """Let the models read b as they read a; they write the two with rows of their own."""
    a, b = talk("ab", terminated=True).tokens[:2]
    for network in networks:
        read, written = network.causal.get_input_embeddings(), network.causal.get_output_embeddings()
        with torch.no_grad():
            read.weight[b] = read.weight[a]
        assert not torch.equal(written.weight[a], written.weight[b])


@every_objective
def test_what_the_environment_says_counts_only_as_it_is_read(
    objective: Any,
    tiny: Callable[..., PreTrainedModel],
    learner_for: Callable[..., Learner],
    recorded: Callable[..., Batch],
) -> None:
    """Two tokens that are read alike: the environment may say either, and every figure of the loss stays as it was."""
    found = []
    for heard in ("a", "b", "h"):
        learner = learner_for(objective, family="llama", vocabulary=5 + len(LETTERS))
        reference = LanguageQ(tiny("llama", 5 + len(LETTERS), seed=1))
        twins(reference, learner.network, learner.target.network)
        batch = recorded(reference, [talk(heard, terminated=False)], objective.plausible)
        torch.manual_seed(2)
        metrics = learner.update(batch).metrics
        found.append([metrics[name] for name in ("loss", "td_abs", "q_mean")])
    assert found[0] == found[1] and found[0] != found[2]


def test_fine_tuning_reads_it_alike_and_pretraining_does_not(
    tiny: Callable[..., PreTrainedModel], recorded: Callable[..., Batch]
) -> None:
    network = LanguageQ(tiny("llama", 5 + len(LETTERS)))
    twins(network)
    talks = [talk(heard, terminated=False) for heard in "ab"]
    tuned = [decision_loss(network, recorded(network, [episode])).item() for episode in talks]
    whole = [next_token_loss(network, [torch.from_numpy(episode.tokens)]).item() for episode in talks]
    assert tuned[0] == tuned[1] and whole[0] != whole[1]
