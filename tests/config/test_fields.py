import re
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from tokenq.config.fields import alternatives, describe, docs_of, tag
from tokenq.config.parse import dump, from_mapping, parse


@dataclass(frozen=True)
class Soft:
    lam: float = 0.0
    """Share of the way, 100 % at most."""


@dataclass(frozen=True)
class DoubleDQN:
    plausible: int = 8
    """Number of candidates."""


@dataclass(frozen=True)
class Train:
    """Train a model.

    Not part of the summary.
    """

    model: str | None = None
    """Folder of the model
    to start from."""
    silent: bool = False
    objective: Soft | DoubleDQN = field(default_factory=lambda: Soft(0.5))
    """What is learned."""
    rewards: list[str] = field(default_factory=list)
    """One name."""


@dataclass(frozen=True)
class Say:
    run: str
    """Whose words."""


def shown(argv: str, cls: type, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(argv.split(), cls, "tokenq act")
    assert ended.value.code == 0
    return re.sub(r"\s+", " ", capsys.readouterr().out)


def test_help_starts_with_the_summary_and_shows_types_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown("--help", Train, capsys)
    assert "usage: tokenq act [CONFIG.yaml] [--option VALUE ...] Train a model. options:" in text
    assert "--model MODEL Folder of the model to start from. (type: str | null, default: null)" in text
    assert "--rewards REWARDS One name. Repeatable. (type: str, default: [])" in text
    assert "--objective.lam LAM Share of the way, 100 % at most. (type: float, default: 0.5)" in text


def test_help_lists_the_fields_of_the_chosen_types(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown("--objective double_dqn -h", Train, capsys)
    assert "--objective.type {soft,double_dqn} What is learned. Short: --objective." in text
    assert "--objective.plausible PLAUSIBLE Number of candidates. (type: int, default: 8)" in text
    assert "--objective.lam" not in text


@dataclass(frozen=True)
class Inner:
    how: Soft | DoubleDQN = field(default_factory=Soft)
    """How it is done."""
    share: float = 1.0
    """Some number."""


@dataclass(frozen=True)
class Agent:
    """Has presets of its own."""

    objective: Soft | Inner | DoubleDQN = field(
        default_factory=Soft, metadata=alternatives(Inner(DoubleDQN(3), 0.5), DoubleDQN(99))
    )
    """What is learned."""


def test_a_class_chosen_by_name_has_the_defaults_of_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    """The preset counts as if it were the default: for what is built, printed and explained."""
    assert parse([], Agent).objective == Soft()
    assert parse(["--objective", "double_dqn"], Agent).objective == DoubleDQN(99)
    assert parse(["--objective", "inner"], Agent).objective == Inner(DoubleDQN(3), 0.5)
    assert parse(["--objective", "inner", "--objective.share", "2"], Agent).objective == Inner(DoubleDQN(3), 2.0)
    assert parse(["--objective", "inner", "--objective.how", "soft"], Agent).objective == Inner(Soft(), 0.5)
    assert from_mapping(Agent, {"objective": {"type": "inner", "share": 4}}, "x").objective.how == DoubleDQN(3)
    assert parse(["--objective", "double_dqn"], Train).objective == DoubleDQN()
    text = shown("--objective inner -h", Agent, capsys)
    assert "--objective.share SHARE Some number. (type: float, default: 0.5)" in text
    assert "--objective.how.plausible PLAUSIBLE Number of candidates. (type: int, default: 3)" in text
    printed = shown("--objective inner --print_config", Agent, capsys)
    assert printed == "objective: type: inner how: type: double_dqn plausible: 3 share: 0.5 "
    assert dump(Agent()) == "objective:\n  type: soft\n  lam: 0.0\n"


def test_help_says_what_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True)
    class Outer:
        """Has a part that needs something."""

        say: Say | None = None
        """What is said."""

    assert "--say.run RUN Whose words. (required, type: str)" in shown("--say say --help", Outer, capsys)


def test_help_needs_no_positional_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert "usage: tokenq act RUN [--option VALUE ...]" in shown("--help", Say, capsys)


def test_docs_are_the_strings_below_the_fields() -> None:
    assert docs_of(Train) == {
        "model": "Folder of the model to start from.",
        "objective": "What is learned.",
        "rewards": "One name.",
    }


@pytest.mark.parametrize(
    ("name", "expected"), [("DQN", "dqn"), ("DoubleDQN", "double_dqn"), ("WorstIsZero", "worst_is_zero"), ("A", "a")]
)
def test_tags_are_snake_case(name: str, expected: str) -> None:
    assert tag(type(name, (), {})) == expected


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (float, "float"),
        (int | None, "int or null"),
        (list[str | dict[str, int]], "a list of str or a mapping"),
        (Literal["a", 3], "one of a, 3"),
    ],
)
def test_types_in_words(hint: Any, expected: str) -> None:
    assert describe(hint) == expected


def test_two_kinds_of_value_cannot_share_a_field() -> None:
    @dataclass(frozen=True)
    class Mixed:
        value: Say | int = 3

    with pytest.raises(TypeError, match="a group is a dataclass"):
        parse([], Mixed)
