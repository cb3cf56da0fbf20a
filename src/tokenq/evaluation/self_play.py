"""Two models negotiate with each other: how often they agree, and what for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from tokenq.acting.rollout import Exploration, Writer
from tokenq.envs.negotiation import Negotiation, Partner, Scenario
from tokenq.errors import DataError
from tokenq.evaluation.intervals import Score, resample_counts, resampled_score


@dataclass(frozen=True, eq=False)
class Speaker:
    """A model as a partner in a game: from its messages to what it says next.

    Where they outgrow the model's context, the oldest after the first are forgotten.
    """

    writer: Writer
    exploration: Exploration
    max_completion_length: int

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The next message, without its end token."""
        prompt = None
        while prompt is None:
            try:
                prompt = self.writer.prompt({"prompt": list(messages)}, self.max_completion_length)
            except DataError:
                if len(messages) < 3:
                    raise
                messages = [messages[0], *messages[3:]]
        (tokens,) = self.writer.complete([prompt], self.exploration, self.max_completion_length, 0)
        return self.writer.codec.text(prompt, tokens).strip()


def self_play(
    agent: Partner, partner: Partner, scenarios: Sequence[Scenario], games: int, seed: int
) -> dict[str, Score]:
    """The agent's figures over games in the order of the scenarios, which each player opens in turn.

    `points` and `partner_points` count a game without agreement as 0; `points_per_agreement` leaves it out. Intervals
    are percentiles over resamples of the scenarios, for the games of one are alike. Texts are drawn from torch's global
    generator, in a fork of it that starts at `seed`.
    """
    environment = Negotiation(partner, scenarios)
    numbers = [game // 2 % len(scenarios) for game in range(games)]
    rows = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for game, number in enumerate(numbers):
            rows.append(_played(environment, agent, scenarios[number], game % 2 == 0))
    points, theirs, agreed = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    counts, each = resample_counts(np.array(numbers), seed), np.ones(games)
    return {
        "points": _share(points, each, counts),
        "partner_points": _share(theirs, each, counts),
        "agreement_rate": _share(agreed, each, counts),
        "points_per_agreement": _share(points, agreed, counts),
    }


def _played(environment: Negotiation, agent: Partner, scenario: Scenario, opens: bool) -> tuple[float, float, bool]:
    """The agent's points, its partner's, and whether they agreed; a game that was cut off counts as none."""
    observation, _ = environment.reset(seed=0, **vars(scenario), opens=opens)
    messages = [{"role": "user", "content": observation}]
    while True:
        action = agent(messages)
        observation, reward, terminated, truncated, info = environment.step(action)
        if terminated or truncated:
            return reward, info.get("partner_points", 0.0), info.get("agreed", False)
        said = " ".join(action.split()) or "..."
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": observation}]


def _share(earned: Float[np.ndarray, "n"], counted: Float[np.ndarray, "n"], counts: Int[np.ndarray, "r n"]) -> Score:
    """What was earned for each of the games that are counted; NaN where none is."""
    with np.errstate(invalid="ignore"):
        value, resampled = earned.sum() / counted.sum(), (counts @ earned) / (counts @ counted)
    return resampled_score(resampled, float(value), int(counted.sum()))
