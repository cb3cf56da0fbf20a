import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenq.replay.buffer import Replay
from tokenq.replay.samplers import Uniform
from tokenq.replay.support import Support

ALL = np.array([[True, True]])


def test_share_by_hand(make_episode) -> None:
    replay = Replay(None, None, Uniform())
    first, second = make_episode([5, 1, 2], n=2), make_episode([5, 1, 3], n=2)
    replay.add([first, second])
    # After 5 only 1 was taken, after 5 1 both 2 and 3.
    assert replay.unseen_share([first], np.array([[1, 3]]), ALL) == 0.0
    assert replay.unseen_share([first], np.array([[2, 3]]), ALL) == 0.5
    assert replay.unseen_share([first], np.array([[0, 1]]), ALL) == 1.0


def test_the_whole_prefix_counts(make_episode) -> None:
    replay = Replay(None, None, Uniform())
    replay.add([make_episode([5, 1, 2], n=1), make_episode([6, 1, 3], n=1)])
    asked = make_episode([6, 1, 3], n=1)
    assert replay.unseen_share([asked], np.array([[2]]), np.array([[True]])) == 1.0


def test_prompt_tokens_are_nobodys_action(make_episode) -> None:
    replay = Replay(None, None, Uniform())
    replay.add([make_episode([5, 1, 2], n=1)])
    assert replay.unseen_share([make_episode([5, 1, 2], n=2)], np.array([[1, 2]]), ALL) == 0.5


def test_only_the_present_content_counts(make_episode) -> None:
    replay = Replay(1, None, Uniform())
    old, new = make_episode([5, 1, 2], n=2), make_episode([5, 1, 3], n=2)
    replay.add([old])
    replay.add([new])
    assert replay.unseen_share([old], np.array([[1, 2]]), ALL) == 0.5


def test_padding_is_not_asked(make_episode) -> None:
    replay = Replay(None, None, Uniform())
    episode = make_episode([5, 1])
    replay.add([episode])
    assert replay.unseen_share([episode], np.array([[1, 7]]), np.array([[True, False]])) == 0.0
    assert math.isnan(replay.unseen_share([episode], np.array([[1, 7]]), np.array([[False, False]])))


@given(
    texts=st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=5), min_size=1, max_size=12),
    capacity=st.integers(1, 6),
    greedy=st.lists(st.integers(0, 2), min_size=2, max_size=2),
)
def test_agrees_with_comparing_every_text(make_episode, texts, capacity: int, greedy: list[int]) -> None:
    replay = Replay(capacity, None, Uniform())
    for text in texts:
        replay.add([make_episode(text, n=2)])
    asked = make_episode(texts[0], n=2)
    taken = {tuple(text[: i + 1]) for text in texts[-capacity:] for i in range(len(text) - 2, len(text))}
    wanted = [(*texts[0][:i], action) for i, action in zip(asked.decisions, greedy, strict=True)]
    expected = sum(pair not in taken for pair in wanted) / 2
    assert replay.unseen_share([asked], np.array([greedy]), ALL) == pytest.approx(expected)


def test_what_a_policy_has_forgotten_does_not_count(make_episode) -> None:
    support = Support()
    support.add(replace(make_episode([1, 2, 3, 4], n=2), since=np.array([1, 1, 1])))
    other = replace(make_episode([7, 2, 3, 4], n=2), since=np.array([1, 1, 1]))
    real = np.array([[True, True]])
    assert support.unseen_share([other], np.array([[3, 4]]), real) == 0
    assert support.unseen_share([other], np.array([[4, 4]]), real) == 0.5
    assert support.unseen_share([make_episode([7, 2, 3, 4], n=2)], np.array([[3, 4]]), real) == 1
