"""Whole completions as actions: of several that the policy drew, the one that its Q heads find best is written."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tokenq.errors import ConfigError
from tokenq.nets.generation import Policy
from tokenq.nets.language import LanguageQ
from tokenq.nets.q_heads import Guided
from tokenq.types import Episode, Texts


class BestOf(LanguageQ):
    """Expected-max Q over completions (EMaQ: Ghasemipour et al. 2021, arXiv 2007.11091, with its N = `candidates`).

    A value that is known only once most of a text is there cannot guide its first token, but it can choose between
    texts. Costs `candidates` times the writing. The answers at single decisions are still those of `network`.
    """

    def __init__(self, network: LanguageQ, candidates: int) -> None:
        if network.q_heads is None:
            raise ConfigError(f"candidates: got {candidates} for a model without Q heads, which knows no best; set 1")
        super().__init__(network.model, network.value_head, network.q_heads)
        self.candidates = candidates

    @torch.no_grad()
    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        sources: Sequence[Sequence[int]],
        policy: Policy,
        max_new_tokens: int,
        ends: Sequence[int],
    ) -> list[list[int]]:
        """The best of `candidates` completions for each prompt, by min Q of the last token; of equals the first."""
        draw = super().complete
        drawn = [draw(prompts, sources, policy, max_new_tokens, ends) for _ in range(self.candidates)]
        worth = torch.stack([self.worth(prompts, sources, completions) for completions in drawn])
        return [drawn[int(best)][i] for i, best in enumerate(worth.argmax(0))]

    def worth(
        self, prompts: Sequence[Sequence[int]], sources: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
    ) -> Float[Tensor, "B"]:
        """Min Q of each completion's last token, in units of the scaled reward."""
        heard = sources or [()] * len(prompts)
        episodes = [
            Episode(
                tokens=np.array([*prompt, *said]),
                decisions=np.array([len(prompt) + len(said) - 1]),
                rewards=np.zeros(1),
                terminated=True,
                source=np.array(source, dtype=np.int64),
            )
            for prompt, source, said in zip(prompts, heard, completions, strict=True)
        ]
        texts = Texts(*(part.to(self.device) for part in vars(Texts.of(episodes, pad_token=0)).values()))
        answers = self.at_states(texts, torch.ones_like(texts.states, dtype=torch.bool))
        assert isinstance(answers, Guided)  # it has Q heads
        last = torch.tensor([[said[-1]] for said in completions], device=self.device)
        return torch.stack([head.at(last) for head in answers.heads]).amin(0).squeeze(1)
