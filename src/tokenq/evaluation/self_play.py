"""Two models negotiate with each other: how often they agree, and what for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tokenq.acting.rollout import Exploration, Writer
from tokenq.envs.negotiation import Negotiation, Partner, Scenario
from tokenq.errors import DataError
from tokenq.evaluation.intervals import Score, bootstrap, mean_score


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

    `points` and `partner_points` count a game without agreement as 0; `points_per_agreement` leaves it out. Texts are
    drawn from torch's global generator, in a fork of it that starts at `seed`.
    """
    environment = Negotiation(partner, scenarios)
    rows = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for number in range(games):
            scenario = scenarios[number // 2 % len(scenarios)]
            rows.append(_played(environment, agent, scenario, number % 2 == 0))
    points, theirs, agreed = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    return {
        "points": mean_score(points, seed),
        "partner_points": mean_score(theirs, seed),
        "agreement_rate": mean_score(agreed, seed),
        "points_per_agreement": _per_agreement(points, agreed, seed),
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


def _per_agreement(points: np.ndarray, agreed: np.ndarray, seed: int) -> Score:
    def mean(rows: np.ndarray) -> float:
        return float(points[rows].sum() / agreed[rows].sum()) if agreed[rows].any() else float("nan")

    everything = np.arange(len(points))
    return Score(mean(everything), *bootstrap(mean, len(points), seed), int(agreed.sum()))
