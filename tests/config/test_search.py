from typing import Any

import pytest
import yaml

from tokenq.config.parse import to_mapping
from tokenq.config.search import Choices, Floats, Ints, configured, read_search, text_of
from tokenq.config.train import TrainConfig
from tokenq.errors import ConfigError


def test_spaces_take_the_type_of_their_setting() -> None:
    written = {
        "learning_rate": {"low": "1e-4", "high": 1e-2, "log": True},
        "objective.lam": {"low": 0, "high": 1},
        "max_steps": {"low": 100, "high": 400, "step": 100},
        "reward_scale": {"choices": [None, "standardise"]},
    }
    spaces = read_search(TrainConfig(), written)
    assert spaces["learning_rate"] == Floats(1e-4, 1e-2, log=True)
    assert spaces["objective.lam"] == Floats(0.0, 1.0, log=False), "integers, but the setting is a number"
    assert spaces["max_steps"] == Ints(100, 400, 100, log=False)
    scale = spaces["reward_scale"]
    assert isinstance(scale, Choices) and scale.names == ("null", "standardise")
    assert scale.name(to_mapping(configured(TrainConfig(), {"reward_scale": "standardise"}))["reward_scale"])
    assert (spaces["max_steps"].name(300), spaces["max_steps"].name(350), spaces["max_steps"].name(500)) == (
        300,
        None,
        None,
    )


@pytest.mark.parametrize("value", [None, True, 3, 1e-4, "a b", {"type": "polyak", "tau": 0.1}, ["x" * 300]])
def test_a_text_is_one_line_and_reads_back(value: Any) -> None:
    assert "\n" not in text_of(value) and yaml.safe_load(text_of(value)) == value


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"learning_rat": {"low": 1, "high": 2}}, "search: unknown key 'learning_rat'.*did you mean 'learning_rate'?"),
        ({"learning_rate": {"low": 3, "high": 2}}, "search.learning_rate: low: got 3, expected at most high"),
        ({"learning_rate": {"low": 0, "high": 2, "log": True}}, "low: got 0, expected a number > 0 where log"),
        ({"learning_rate": {"low": 0, "high": 2}}, "learning_rate: got 0.0, expected a finite number > 0"),
        ({"learning_rate": {"low": 1, "hihg": 2}}, "unknown key 'hihg'; did you mean 'high'?"),
        ({"learning_rate": {"low": 1}}, "search.learning_rate: high: missing"),
        ({"learning_rate": 3}, "search.learning_rate: got 3, expected {low: …, high: …} or"),
        ({"learning_rate": {"low": 1, "high": 2, "step": 1}}, "got step 1, expected none, since it is no integer"),
        ({"max_steps": {"low": 0.5, "high": 2}}, "search.max_steps: max_steps: got 0.5 .float., expected int"),
        ({"use_peft": {"low": 0, "high": 1}}, "search.use_peft: use_peft: got 0"),
        ({"lr_scheduler_type": {"choices": ["linear", "sine"]}}, "got 'sine' .str., expected one of constant"),
        ({"objective": {"choices": ["dqn", {"type": "soft", "lam": 2}]}}, "objective.lam: got 2.0, expected a number"),
        ({"top_k": {"choices": [1, 1]}}, "search.top_k: choices: got .1, 1., expected each of them once"),
        ({"top_k": {"choices": []}}, "search.top_k: choices: got none"),
        ({"objective.type": {"choices": ["dqn"]}}, "got 'objective.type', expected 'objective'"),
        ({"objective": {"choices": ["dqn"]}, "objective.lam": {"low": 0, "high": 1}}, "lies inside 'objective'"),
        ({"seed": {"low": 0, "high": 9}}, "got 'seed', which must be the same in all trials"),
    ],
)
def test_a_search_that_cannot_be_made(search: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_search(TrainConfig(), search)
