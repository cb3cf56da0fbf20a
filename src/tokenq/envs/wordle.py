"""A word game in text: find a hidden five-letter word in six guesses by the colours of their letters.

The constraint game of LMRL-Gym (Abdulhai et al. 2023, arXiv 2311.18232; Snell et al. 2023, arXiv 2206.11871): the
hidden word is drawn anew before every guess, from the words that agree with all colours so far. That changes no
probability of a game, but every state is known by its guesses and colours alone.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from tokenq.envs.text import Answer, Observed, TextEnvironment, mean_return, no_game, play
from tokenq.envs.wordle_words import WORDS
from tokenq.errors import ConfigError, DataError

TURNS = 6
LENGTH = 5
BLACK, YELLOW, GREEN = "B", "Y", "G"
"""Capitals, so that a colour is never the token of a letter."""
CODES = 3**LENGTH


@dataclass(frozen=True)
class Wordle:
    """Six guesses, reward −1 for each but the one that finds the word."""

    words: str | None = None
    """File with a word per line; a list of our own without it. Guesses and hidden words are of this list."""
    games: int = 20_000
    """Logged games, >= 1."""
    consistent: float = 1 / 3
    """How often the log's player draws from the words that agree with all colours, not from all: in [0, 1]."""
    spelled: bool = True
    """Whether guesses are written letter by letter, "c r a n e", and answered with five colours; otherwise a guess is
    one word, and the answer shows its letters with places and colours, "c1B r2Y a3G n4B e5B", as a board does."""
    bound_games: int = 4096
    """Games that each bound is measured on, >= 2; 4,096 is the number of published evaluations."""

    def __post_init__(self) -> None:
        for name, least in (("games", 1), ("bound_games", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected an integer >= {least}")
        if not 0 <= self.consistent <= 1:
            raise ConfigError(f"consistent: got {self.consistent}, expected a number in [0, 1]")

    @property
    def memory(self) -> None:
        """The whole game."""
        return None

    def make(self) -> TextEnvironment:
        """A new game on these words."""
        return WordleGame(lexicon(self.words), self.spelled)

    def starts(self) -> list[dict[str, Any]]:
        """They are all alike."""
        return [{}]

    def rows(self, seed: int = 0) -> list[dict[str, Any]]:
        """The logged games of a player that draws its guesses: `Guesser(consistent)`."""
        game, player = self.make(), Guesser(self.consistent)
        return [play(game, player, int(s)) for s in np.random.default_rng(seed).integers(2**31, size=self.games)]

    def bounds(self) -> dict[str, float]:
        """Mean returns of random words, of the log's player, of words that agree, and of `Informed`.

        `informed` is exact. It is greedy, no proof of an optimum; on the published words it earns the published bound.
        """
        players = {"uniform": 0.0, "behaviour": self.consistent, "consistent": 1.0}
        measured = {name: mean_return(self.make(), Guesser(p), self.bound_games).mean for name, p in players.items()}
        return measured | {"informed": informed_return(lexicon(self.words))}


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Words, and how each one as a guess is coloured by each one as the hidden word, W by W.

    Colours are one number: the i-th letter counts 3^i times 0 (black), 1 (yellow) or 2 (green).
    """

    words: tuple[str, ...]

    @cached_property
    def colours(self) -> UInt8[np.ndarray, "W W"]:
        """Row: guess; column: hidden word."""
        letters = np.array([[ord(letter) for letter in word] for word in self.words])
        present = (letters[:, None, :, None] == letters[None, :, None, :]).any(-1)
        here = letters[:, None] == letters[None]
        weights = 3 ** np.arange(LENGTH)
        return np.asarray((present.astype(int) + here) @ weights, dtype=np.uint8)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The place of each word."""
        return {word: number for number, word in enumerate(self.words)}

    @cached_property
    def _guesses(self) -> dict[bytes, int]:
        return {}

    def most_informative(self, left: Bool[np.ndarray, "W"]) -> int:
        """The guess whose colours say most on which of the words that are left is hidden; of equals, one that is left.

        It makes the entropy of the colours greatest, where every word that is left is equally likely.
        """
        key = left.tobytes()
        if key not in self._guesses:
            information = self._information(left)
            # Sums of logarithms in another order differ in their last digits.
            self._guesses[key] = int(np.argmax(np.round(information, 9) + 1e-10 * left))
        return self._guesses[key]

    def _information(self, left: Bool[np.ndarray, "W"]) -> Float[np.ndarray, "W"]:
        codes = self.colours[:, left].astype(np.int64)
        guesses, n = codes.shape
        flat = (codes + CODES * np.arange(guesses)[:, None]).ravel()
        counts = np.bincount(flat, minlength=guesses * CODES).reshape(guesses, CODES)
        shares = counts / n
        return np.asarray(-(shares * np.log(np.where(counts > 0, shares, 1.0))).sum(-1))


@lru_cache(maxsize=8)
def lexicon(path: str | None) -> Lexicon:
    """The words of a file, or our own; once per process. Raises `DataError` with the line of what is no such word."""
    if path is None:
        return Lexicon(WORDS)
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"words: cannot read {path}: {error.strerror}; expected a file with a word per line") from error
    words = {line.strip(): number for number, line in enumerate(lines, 1) if line.strip()}
    for word, number in words.items():
        if len(word) != LENGTH or not (word.isascii() and word.islower()):
            raise DataError(f"{path} line {number}: got {word!r}, expected five letters a to z; fix or drop the line")
    if len(words) < 2:
        raise DataError(f"{path}: got {len(words)} words, expected at least two")
    return Lexicon(tuple(words))


def colours_of(guess: str, hidden: str) -> str:
    """The colours of a guess: G where it is right, Y where the hidden word has the letter elsewhere, B where nowhere.

    Letters are looked at one by one: a repeated letter is yellow each time, however often the hidden word has it.
    """
    marks = (GREEN if a == b else YELLOW if a in hidden else BLACK for a, b in zip(guess, hidden, strict=True))
    return "".join(marks)


class WordleGame:
    """One game. `left` says which words of `lexicon` agree with all colours so far, None where no game is on."""

    def __init__(self, lexicon: Lexicon, spelled: bool = True) -> None:
        self.lexicon = lexicon
        self.left: np.ndarray | None = None
        self._spelled = spelled
        self._rng = np.random.default_rng()
        self._turns = 0

    def reset(self, *, seed: int | None = None, **_: Any) -> Observed:
        """A new game: nothing is known."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.left, self._turns = np.ones(len(self.lexicon.words), dtype=bool), 0
        return "guess", {}

    def step(self, action: str) -> Answer:
        """Colours of a guess; a guess that is no word of the list costs a turn and shows nothing."""
        if self.left is None:
            raise no_game()
        self._turns += 1
        over = self._turns == TURNS
        guess = self.lexicon.numbers.get("".join(action.split()))
        if guess is None:
            observation, info, won = "unknown", {"invalid": True}, False
        else:
            hidden = int(self._rng.choice(np.flatnonzero(self.left)))
            self.left = self.left & (self.lexicon.colours[guess] == self.lexicon.colours[guess, hidden])
            observation, info, won = self._answer(guess, hidden), {}, guess == hidden
        if over or won:
            self.left = None
        return observation, 0.0 if won else -1.0, over or won, False, info

    def spell(self, number: int) -> str:
        """A word of the list as an action."""
        return (" " if self._spelled else "").join(self.lexicon.words[number])

    def _answer(self, guess: int, hidden: int) -> str:
        word = self.lexicon.words[guess]
        colours = colours_of(word, self.lexicon.words[hidden])
        board = (f"{word[i]}{i + 1}{colour}" for i, colour in enumerate(colours))
        return " ".join(colours if self._spelled else board)


@dataclass(frozen=True)
class Guesser:
    """Draws from the words that agree with all colours with probability `consistent`, else from all words."""

    consistent: float

    def act(self, environment: Any, rng: np.random.Generator) -> str:
        """A guess."""
        agreeing = rng.random() < self.consistent
        words = np.flatnonzero(environment.left) if agreeing else np.arange(len(environment.left))
        return str(environment.spell(int(rng.choice(words))))


@dataclass(frozen=True)
class Informed:
    """Guesses what says most on the hidden word, and the word itself when it is the only one left."""

    def act(self, environment: Any, rng: np.random.Generator) -> str:
        """A guess."""
        return str(environment.spell(environment.lexicon.most_informative(environment.left)))


def informed_return(lexicon: Lexicon) -> float:
    """The mean return of `Informed` over all hidden words, exactly: it plays against all of them together."""

    def cost(left: Bool[np.ndarray, "W"], turn: int) -> int:
        guess = lexicon.most_informative(left)
        total = 0
        for code in np.unique(lexicon.colours[guess, left]):
            after = left & (lexicon.colours[guess] == code)
            if code < CODES - 1:
                total += int(after.sum()) + (cost(after, turn + 1) if turn < TURNS else 0)
        return total

    everything = np.ones(len(lexicon.words), dtype=bool)
    return -cost(everything, 1) / len(everything)
