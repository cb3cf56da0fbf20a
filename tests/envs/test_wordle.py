"""Colours by hand, the constraint game, and what scripted players earn."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenq.envs.text import mean_return
from tokenq.envs.wordle import Guesser, Informed, Lexicon, Wordle, WordleGame, colours_of, informed_return, lexicon
from tokenq.envs.wordle_words import WORDS
from tokenq.errors import ConfigError, DataError

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "wordle" / "answers_400.txt"
OWN = lexicon(None)


@pytest.mark.parametrize(
    ("guess", "hidden", "colours"),
    [
        ("crane", "crane", "GGGGG"),
        ("crane", "moist", "BBBBB"),
        ("crane", "nerve", "BYBYG"),
        # Repeated letters, each looked at alone. The original web game shows "GBBBB" for the first of them.
        ("eerie", "ebony", "GYBBY"),
        ("alley", "label", "YYYGB"),
        ("geese", "elbow", "BYYBY"),
        ("kayak", "alarm", "BYBYB"),
    ],
)
def test_colours_by_hand(guess: str, hidden: str, colours: str) -> None:
    assert colours_of(guess, hidden) == colours


def test_the_matrix_holds_the_colours_of_all_pairs() -> None:
    words = OWN.words[::9]
    matrix = Lexicon(words).colours
    for i, guess in enumerate(words):
        for j, hidden in enumerate(words):
            code = sum("BYG".index(colour) * 3**place for place, colour in enumerate(colours_of(guess, hidden)))
            assert matrix[i, j] == code


def knows(guesses: list[tuple[str, str]], word: str) -> bool:
    """Whether a word agrees with guesses and colours, letter by letter as published: here, not here, nowhere."""
    here, not_here, within, nowhere = set(), set(), set(), set()
    for guess, colours in guesses:
        for place, (letter, colour) in enumerate(zip(guess, colours, strict=True)):
            {"G": here, "Y": not_here}.get(colour, nowhere).add((letter, place))
            if colour == "Y":
                within.add(letter)
    return (
        all(word[place] == letter for letter, place in here)
        and all(word[place] != letter for letter, place in not_here)
        and all(letter in word for letter in within)
        and all(letter not in word for letter, _ in nowhere)
    )


@given(st.integers(0, 2**16))
def test_the_words_left_are_those_that_agree_with_all_that_is_known(seed: int) -> None:
    game = WordleGame(OWN)
    game.reset(seed=seed)
    rng = np.random.default_rng(seed)
    told: list[tuple[str, str]] = []
    over = False
    while not over:
        action = Guesser(0.5).act(game, rng)
        seen, reward, over, truncated, _ = game.step(action)
        told.append((action.replace(" ", ""), seen.replace(" ", "")))
        assert not truncated and reward == (0.0 if seen == "G G G G G" else -1.0)
        if not over:
            assert game.left is not None
            assert game.left.tolist() == [knows(told, word) for word in OWN.words]
    assert len(told) == 6 or reward == 0.0


def test_a_game_by_hand() -> None:
    """Four words. After "match" as "B G G G G" or "G G G G G" is shown, at most patch, catch and latch are left."""
    game = WordleGame(Lexicon(("match", "patch", "catch", "latch")))
    assert game.reset(seed=0) == ("guess", {})
    assert game.step("touch") == ("unknown", -1.0, False, False, {"invalid": True})
    assert game.step("") == ("unknown", -1.0, False, False, {"invalid": True})
    assert game.step("m a t c h e s")[0] == "unknown" and game.left is not None and game.left.all()
    seen, reward, over, *_ = game.step("m a t c h\n")
    if not over:
        assert (seen, reward) == ("B G G G G", -1.0)
        assert game.left is not None and game.left.tolist() == [False, True, True, True]
    assert game.reset() == ("guess", {})
    ends = [game.step("?") for _ in range(6)]
    assert [end[2] for end in ends] == [False] * 5 + [True] and sum(end[1] for end in ends) == -6


def test_what_is_most_informative_by_hand() -> None:
    """The word mplch tells all four apart, each of them only itself from the rest. Of two left, one is guessed."""
    words = Lexicon(("match", "patch", "catch", "latch", "mplch"))
    left = np.array([True, True, True, True, False])
    assert words.most_informative(left) == 4
    assert words.most_informative(np.array([False, True, True, False, False])) == 1
    assert words.most_informative(np.array([False, False, True, False, False])) == 2
    game = WordleGame(words, spelled=False)
    game.reset(seed=0)
    game.left = left
    assert Informed().act(game, np.random.default_rng(0)) == "mplch"


def test_a_guess_in_one_word_is_answered_with_its_letters_in_place_and_colour() -> None:
    """Hidden is ebony or one that looks the same: e is right and elsewhere, r and i nowhere."""
    words = Lexicon(("eerie", "ebony"))
    for spelled, answer in ((True, "G Y B B Y"), (False, "e1G e2Y r3B i4B e5Y")):
        game = WordleGame(words, spelled)
        game.reset(seed=0)
        game.left = np.array([False, True])
        assert game.step(game.spell(0))[0] == answer


def test_the_informed_return_by_hand() -> None:
    """Three words that any guess tells apart: one is found at once, the others in the second guess: 0, −1, −1."""
    assert informed_return(Lexicon(("match", "pulps", "catsu"))) == pytest.approx(-2 / 3)


def test_players_rank_as_they_should_on_our_own_words() -> None:
    players = [Guesser(0.0), Guesser(1 / 3), Guesser(1.0), Informed()]
    played = [mean_return(WordleGame(OWN), player, 300) for player in players]
    assert all(worse.high < better.low for worse, better in pairwise(played))
    assert played[-1].low - 0.05 < informed_return(OWN) < played[-1].high + 0.05


@pytest.mark.parametrize(
    ("consistent", "mean", "error"), [(0.0, -5.95, 0.04), (1 / 3, -4.12, 0.12), (2 / 3, -2.99, 0.15), (1.0, -2.37, 0.1)]
)
def test_what_drawn_guesses_earn_on_the_published_words(consistent: float, mean: float, error: float) -> None:
    """Published for 1/3: −4.12; means of 20,000 games for the others (`benchmarks/environments.py`)."""
    if not PUBLISHED.exists():
        pytest.skip(f"no {PUBLISHED.name}: the published list of words is not here")
    game = Wordle(words=str(PUBLISHED)).make()
    assert mean_return(game, Guesser(consistent), 700).mean == pytest.approx(mean, abs=error)


def test_the_published_bound_on_the_published_words() -> None:
    if not PUBLISHED.exists():
        pytest.skip(f"no {PUBLISHED.name}: the published list of words is not here")
    words = lexicon(str(PUBLISHED))
    assert len(words.words) == 431 and informed_return(words) == pytest.approx(-1.94, abs=0.0005)


def test_bounds_have_the_players_names() -> None:
    bounds = Wordle(bound_games=8).bounds()
    assert list(bounds) == ["uniform", "behaviour", "consistent", "informed"]
    assert bounds["informed"] == informed_return(OWN)


def test_the_log_has_the_published_statistics() -> None:
    """Published: mean return −4.12, success 0.70, length 4.82 with deviation 1.27."""
    if not PUBLISHED.exists():
        pytest.skip(f"no {PUBLISHED.name}: the published list of words is not here")
    rows = Wordle(words=str(PUBLISHED), games=1500).rows()
    lengths = np.array([len(row["rewards"]) for row in rows])
    assert np.mean([sum(row["rewards"]) for row in rows]) == pytest.approx(-4.12, abs=0.12)
    assert np.mean([row["rewards"][-1] == 0 for row in rows]) == pytest.approx(0.70, abs=0.035)
    assert lengths.mean() == pytest.approx(4.82, abs=0.1) and lengths.std() == pytest.approx(1.27, abs=0.06)


def test_rows_are_repeatable_and_written_as_asked() -> None:
    rows = Wordle(games=20).rows(1)
    assert rows == Wordle(games=20).rows(1) != Wordle(games=20).rows(2)
    whole = Wordle(games=20, spelled=False).rows(1)
    for spelled, row in zip(rows, whole, strict=True):
        said = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        assert all(word in WORDS for word in said) and row["terminated"]
        assert [" ".join(word) for word in said] == [
            m["content"] for m in spelled["messages"] if m["role"] == "assistant"
        ]


def test_our_own_words_are_words() -> None:
    assert len(WORDS) == len(set(WORDS)) == 431 and list(WORDS) == sorted(WORDS)
    assert all(len(word) == 5 and word.isascii() and word.islower() for word in WORDS)


def test_bad_lists_and_settings_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("crane\n\nCrane\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"words.txt line 3: got 'Crane', expected five letters"):
        Wordle(words=str(path)).make()
    with pytest.raises(DataError, match="cannot read"):
        Wordle(words=str(tmp_path / "none.txt")).make()
    (tmp_path / "one.txt").write_text("crane\n", encoding="utf-8")
    with pytest.raises(DataError, match="got 1 words"):
        Wordle(words=str(tmp_path / "one.txt")).make()
    with pytest.raises(ConfigError, match="games: got 0"):
        Wordle(games=0)
    with pytest.raises(ConfigError, match="consistent: got 2"):
        Wordle(consistent=2)
