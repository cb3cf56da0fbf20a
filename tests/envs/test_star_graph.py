"""Star graphs: the answers by hand, the split, what a guess earns."""

import numpy as np
import pytest

from tokenq.envs.star_graph import Follower, StarGraph, arm_of, arms_of
from tokenq.errors import ConfigError

SMALL = StarGraph(graphs=300, held_out=50)


@pytest.mark.parametrize(
    ("prompt", "arm"),
    [
        ("7 3 , 4 7 , 4 9 , 9 1 ; 4 1 =", "4 9 1"),
        ("7 3 , 4 7 , 4 9 , 9 1 ; 4 3 =", "4 7 3"),
        ("0 5 , 0 6 , 0 7 ; 0 6 =", "0 6"),
    ],
)
def test_answers_by_hand(prompt: str, arm: str) -> None:
    assert arm_of(prompt) == arm.split()
    assert SMALL.reward([prompt] * 5, [arm, f" {arm}\n", arm[:-1], f"{arm} {arm[-1]}", ""]) == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_a_prompt_tells_the_whole_graph_in_any_order() -> None:
    for row in SMALL.answers():
        told, asked = row["prompt"].removesuffix(" =").split(" ; ")
        edges = [edge.split() for edge in told.split(" , ")]
        centre, goal = asked.split()
        starts = [a for a, _ in edges]
        assert len(edges) == 8 and starts.count(centre) == 2 and goal not in starts
        assert len({name for edge in edges for name in edge}) == 9
        assert row["completion"].split() == arm_of(row["prompt"]) and len(row["completion"].split()) == 5
    firsts = {row["prompt"].split()[0] == row["completion"].split()[0] for row in SMALL.answers()}
    assert firsts == {True, False}, "the first edge told must not give the answer away"


def test_training_and_evaluation_do_not_share_a_graph() -> None:
    def key(prompt: str) -> tuple[frozenset[str], str]:
        told, asked = prompt.split(" ; ")
        return frozenset(told.split(" , ")), asked

    # Few labels, so that graphs would be drawn twice if nobody looked.
    task = StarGraph(arms=2, length=2, labels=4, graphs=16, held_out=8)
    train, test = ({key(row["prompt"]) for row in rows} for rows in (task.prompts(), task.eval_prompts()))
    assert len(train) == 16 and len(test) == 8 and not train & test
    with pytest.raises(ConfigError, match="hardly so many; set labels higher"):
        StarGraph(arms=2, length=2, labels=4, graphs=17, held_out=8).prompts()


def test_logged_answers_are_arms_chosen_at_random() -> None:
    rows = SMALL.rows()
    rewards = [row["reward"] for row in rows]
    assert rewards == SMALL.reward([r["prompt"] for r in rows], [r["completion"] for r in rows])
    assert np.mean(rewards) == pytest.approx(SMALL.bounds()["uniform"], abs=0.1)
    assert all(row["completion"].split()[0] == row["prompt"].split()[-3] for row in rows)


def test_the_arms_of_a_prompt_by_hand() -> None:
    assert arms_of("7 3 , 4 7 , 4 9 , 9 1 ; 4 1 =") == [["4", "9", "1"], ["4", "7", "3"]]
    assert arms_of("0 5 , 0 6 , 0 7 ; 0 6 =") == [["0", "6"], ["0", "5"], ["0", "7"]]


@pytest.mark.parametrize(
    ("name", "random", "earned"), [("uniform", 1.0, 1 / 4), ("mixture", 0.5, 5 / 8), ("optimal", 0.0, 1.0)]
)
def test_players_earn_what_the_bounds_say(name: str, random: float, earned: float) -> None:
    """Of four arms a guess is right one time in four."""
    task = StarGraph(arms=4, length=3, graphs=1, held_out=1000)
    assert task.bounds()[name] == earned == Follower(random).mean_reward(4)
    prompts, rng = [row["prompt"] for row in task.eval_prompts()], np.random.default_rng(0)
    played = [Follower(random).act(prompt, rng) for prompt in prompts]
    assert np.mean(task.reward(prompts, played)) == pytest.approx(earned, abs=0.04)
    assert all(answer.split() in arms_of(prompt) for prompt, answer in zip(prompts, played, strict=True))


def test_graphs_are_repeatable_and_the_held_out_ones_do_not_depend_on_how_many_are_trained_on() -> None:
    assert SMALL.rows() == StarGraph(graphs=300, held_out=50).rows()
    assert SMALL.eval_prompts() == StarGraph(graphs=10, held_out=50).eval_prompts()
    assert SMALL.eval_prompts() != StarGraph(graphs=10, held_out=50, graph_seed=1).eval_prompts()


def test_wrong_settings_say_what_was_expected() -> None:
    with pytest.raises(ConfigError, match="labels: got 8, expected an integer >= 9, the nodes of a graph"):
        StarGraph(labels=8)
    with pytest.raises(ConfigError, match="arms: got 1"):
        StarGraph(arms=1)
