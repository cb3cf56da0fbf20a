"""The whole idea of tokenq in one file: calibrated soft Q-learning on the logits of a language model.

A small GPT-2-style model learns 1,000 random walks on a graph by heart. Then it learns, from the same walks and their
scores alone, which steps lead to the goal sooner. Nothing new is ever written or scored: that is offline Q-learning.

    python examples/minimal.py        # about a minute on one core; --help lists the settings

Read it from top to bottom: task, episodes, equations, loop. The library computes the same, without ever holding the
logits of all positions and all tokens at once; `tests/test_minimal.py` holds the two against each other.
"""

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2Config
from transformers import GPT2LMHeadModel as Model

NODES, GOAL, LONGEST = 21, 0, 10  # a walk is a text: its tokens are nodes, 0 to 20, and at most 10 of them
END = NODES  # the token that ends it


@dataclass(frozen=True)
class Settings:
    beta: float = 0.1  # β > 0: reward that one nat of distance from the reference is worth
    gamma: float = 1.0  # γ in [0, 1]: discount per decision
    lam: float = 0.0  # λ in [0, 1]: 0 bootstraps at every decision, 1 follows the data to the end
    tau: float = 0.1  # τ in (0, 1]: share of the online network that the target takes over per update
    learning_rate: float = 3e-4
    max_grad_norm: float = 1.0
    batch_size: int = 100
    pretraining: int = 200  # updates of next-token prediction, to start with
    updates: int = 400
    layers: int = 2
    seed: int = 0


# --- The task: from any node to node 0 in as few steps as possible.
def graph_and_walks(seed: int = 1000, walks: int = 1000) -> tuple[np.ndarray, list[list[int]]]:
    """Edges drawn with probability 0.1 until every node has one, and uniform random walks along them."""
    rng = np.random.RandomState(seed)
    edges = np.zeros((NODES, NODES), dtype=bool)
    while not edges.any(axis=1).all():
        edges = rng.rand(NODES, NODES) > 1 - 0.1
        np.fill_diagonal(edges, False)
    edges[GOAL] = np.arange(NODES) == GOAL
    return edges, [random_walk(edges, rng) for _ in range(walks)]


def random_walk(edges: np.ndarray, rng: np.random.RandomState) -> list[int]:
    path = [GOAL]
    while path[0] == GOAL:
        path = [rng.randint(NODES)]
    while len(path) < LONGEST and path[-1] != GOAL:
        path.append(int(rng.choice(np.nonzero(edges[path[-1]])[0])))
    return path


def shortest_lengths(edges: np.ndarray) -> list[int]:
    """How many nodes the shortest walk from each node to the goal has, at most `LONGEST`."""
    length = [1 if node == GOAL else LONGEST for node in range(NODES)]
    for _ in range(LONGEST):
        length = [min([length[n], *(length[m] + 1 for m in np.nonzero(edges[n])[0])]) for n in range(NODES)]
    return length


def optimality(path: list[int], edges: np.ndarray, shortest: list[int]) -> float:
    """The score of a walk: 1 for a shortest one, 0 for one that leaves the graph or does not arrive."""
    arrived = path[: path.index(GOAL) + 1] if GOAL in path else [END]
    if END in arrived or shortest[path[0]] >= LONGEST or not all(edges[a, b] for a, b in pairwise(arrived)):
        return 0.0
    return (LONGEST - len(arrived)) / (LONGEST - shortest[path[0]])


# --- Episodes: every token after the prompt is a decision.
@dataclass(frozen=True, eq=False)
class Episode:
    """A text of L tokens, or B of them padded on the right. State t is all up to token t, its action is token t + 1."""

    tokens: Tensor  # [L]: prompt and completion
    decided: Tensor  # [L - 1]: False in the prompt and in padding
    rewards: Tensor  # [L - 1]
    continues: Tensor  # [L - 1]: c, 0 where the text ended, 1 before that and where it was cut off
    ref_logit: Tensor  # [L - 1]: ℓ_ref(a|s) of the actions
    ref_lse: Tensor  # [L]: lse ℓ_ref(s)


def logits_and_taken(model: Model, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """ℓ at every position, [B, L, V], and ℓ(a|s) of the actions, [B, L - 1]. No text sees the padding to its right."""
    logits = model(input_ids=tokens).logits
    return logits, logits[:, :-1].gather(-1, tokens[:, 1:, None]).squeeze(-1)


@torch.no_grad()
def episode(reference: Model, prompt: list[int], completion: list[int], rewards: list[float], ended: bool) -> Episode:
    """An episode with what the frozen reference says along it: taken once, no update ever runs the reference."""
    tokens = torch.tensor([*prompt, *completion])
    logits, taken = logits_and_taken(reference, tokens[None])
    decided = torch.arange(len(tokens) - 1) >= len(prompt) - 1
    continues = torch.tensor([1.0] * (len(tokens) - 2) + [0.0 if ended else 1.0])
    rated = torch.tensor([0.0] * (len(prompt) - 1) + rewards)
    return Episode(tokens, decided, rated, continues, taken[0], logits[0].logsumexp(-1))


def collate(episodes: Sequence[Episode]) -> Episode:
    columns = zip(*(vars(episode).values() for episode in episodes), strict=True)
    return Episode(*(pad_sequence(column, batch_first=True) for column in columns))


# --- The equations. A bar marks the target network; ℓ are logits, lse their log-sum-exp over the vocabulary.
def soft_loss(online: Model, target: Model, batch: Episode, settings: Settings) -> Tensor:
    """Mean over decisions of ½·(Q(s_n, a_n) − G_n)², without gradient through G."""
    logits, taken = logits_and_taken(online, batch.tokens)
    # Q(s, a) = β·(ℓ(a|s) − ℓ_ref(a|s)): zero at the start, so what nobody tried is worth zero, the worst score here
    q = settings.beta * (taken - batch.ref_logit)
    with torch.no_grad():
        # V̄(s) = β·(lse ℓ̄(s) − lse ℓ_ref(s)) = β·log Σ_a π_ref(a|s)·exp(Q̄(s, a)/β)
        lagging, _ = logits_and_taken(target, batch.tokens)
        value = settings.beta * (lagging.logsumexp(-1) - batch.ref_lse)
        # ρ = log π(a|s) − log π_ref(a|s), from the online network: a lagging ρ would overshoot
        rho = (taken - logits[:, :-1].logsumexp(-1)) - (batch.ref_logit - batch.ref_lse[:, :-1])
        goal = lambda_returns(batch, value, settings.beta * rho, settings)
    return 0.5 * (q - goal)[batch.decided].square().mean()


def lambda_returns(batch: Episode, value: Tensor, correction: Tensor, settings: Settings) -> Tensor:
    """G_n = r_n + γ·c_n·[(1 − λ)·V̄(s_{n+1}) + λ·(G_{n+1} − β·ρ_{n+1})], from the last decision backwards.

    At the solution Q(s, a) − β·ρ = V(s) for every action, so this holds whoever wrote the text (path consistency).
    Nothing follows the last decision, hence λ = 0 there: an episode that was cut off bootstraps from its last state.
    """
    lam = settings.lam * pad(batch.decided[:, 1:], (0, 1))  # zero where the next token is no decision
    correction = pad(correction, (0, 1))
    returns = torch.zeros_like(value)
    for n in reversed(range(batch.rewards.shape[1])):
        along_data = returns[:, n + 1] - correction[:, n + 1]
        following = (1 - lam[:, n]) * value[:, n + 1] + lam[:, n] * along_data
        returns[:, n] = batch.rewards[:, n] + settings.gamma * batch.continues[:, n] * following
    return returns[:, :-1]


# --- The loop.
def step(model: Model, optimiser: torch.optim.Optimizer, loss: Tensor, max_grad_norm: float = 1.0) -> None:
    loss.backward()
    clip_grad_norm_(model.parameters(), max_grad_norm)
    optimiser.step()
    optimiser.zero_grad()


def update(online: Model, target: Model, optimiser: torch.optim.Optimizer, batch: Episode, settings: Settings) -> None:
    """One gradient step; then the Polyak target follows, θ̄ ← (1 − τ)·θ̄ + τ·θ."""
    step(online, optimiser, soft_loss(online, target, batch, settings), settings.max_grad_norm)
    with torch.no_grad():
        for lagging, leading in zip(target.parameters(), online.parameters(), strict=True):
            lagging.lerp_(leading, settings.tau)


def pretrained(walks: Sequence[Sequence[int]], settings: Settings, rng: np.random.Generator) -> Model:
    """A fresh model that has learned the walks by heart, good and bad alike."""
    shape = {"vocab_size": NODES + 1, "n_positions": 16, "n_embd": 144, "n_head": 12, "n_layer": settings.layers}
    model = Model(GPT2Config(**shape, bos_token_id=END, eos_token_id=END)).eval()  # eval: no dropout
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(settings.pretraining):
        drawn = [torch.tensor([*walks[i], END]) for i in rng.integers(len(walks), size=settings.batch_size)]
        tokens = pad_sequence(drawn, batch_first=True, padding_value=-100)  # -100: what cross_entropy passes over
        logits = model(input_ids=tokens.clamp(min=0)).logits
        step(model, optimiser, cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()))
    return model


def learn(online: Model, replay: Sequence[Episode], settings: Settings, rng: np.random.Generator) -> None:
    """Q-learning from the episodes in the replay, in place. The model is the policy and the Q-function at once."""
    target = copy.deepcopy(online)
    optimiser = torch.optim.AdamW(online.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    for _ in range(settings.updates):
        drawn = rng.choice(len(replay), size=settings.batch_size, replace=False)
        update(online, target, optimiser, collate([replay[i] for i in drawn]), settings)


def report(name: str, model: Model, edges: np.ndarray, shortest: list[int]) -> None:
    """Mean optimality over all starts of plain `generate`: its samples are the learned policy π = softmax ℓ."""
    starts = torch.tensor([node for node in range(NODES) if node != GOAL])[:, None]
    for way, prompts, drawn in (("greedy", starts, False), ("sampled", starts.repeat(20, 1), True)):
        rest = {"attention_mask": torch.ones_like(prompts), "max_new_tokens": LONGEST - 1, "pad_token_id": END}
        paths = model.generate(prompts, do_sample=drawn, top_k=0 if drawn else None, **rest).tolist()
        print(f"{name}: {way} optimality {np.mean([optimality(p, edges, shortest) for p in paths]):.3f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    for field in fields(Settings):
        parser.add_argument(f"--{field.name}", type=field.type, default=field.default, help="default: %(default)s")
    settings = Settings(**vars(parser.parse_args(arguments)))
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)

    edges, walks = graph_and_walks()
    shortest = shortest_lengths(edges)
    model = pretrained(walks, settings, rng)
    report("before", model, edges, shortest)

    replay = []
    for start, *rest in walks:
        rewards = [0.0] * len(rest) + [optimality([start, *rest], edges, shortest)]
        replay.append(episode(model, [start], [*rest, END], rewards, ended=True))  # nothing is learned yet
    learn(model, replay, settings, rng)
    report("after", model, edges, shortest)


if __name__ == "__main__":
    main()
