"""Four sets of real conversations as scored rows.

    python examples/logs/rows.py ../shared/data runs/logs

writes runs/logs/{deal,city,persuasion,satisfaction}/ with train.jsonl, dev.jsonl and test.jsonl for `dataset`, with
clone.jsonl and clone_dev.jsonl, the same with what is imitated and not judged, with best.jsonl and best_dev.jsonl, the
tenth of those with the highest returns (with all that equal the last of them), and with texts.jsonl, what a model is
pretrained on. Where a conversation is longer than fits, its newest turns stay; `dropped` says how many messages went,
and the rewards of those went with them; `total` is the return of the whole. docs/logs.md describes every choice.
"""

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jinja2 import Template

from tokenq.envs.negotiation import SELECTION, stated
from tokenq.errors import DataError

Row = dict[str, Any]
END = "</s>"
TEMPLATE = Template(Path(__file__).with_name("chat.jinja").read_text("utf-8"))
START = "(start)"
WORDS = 12
PREAMBLE = re.compile(r"^(?:.*(?:\n|: |:\"))?\W*(?:\d+[.)])?\W*", re.DOTALL)


@dataclass
class Conversation:
    """Messages in turn, one reward per assistant message (None = unrated), and what else is known.

    The first `judged` assistant messages are what the reward is for; None: all. Those after them are imitated alone.
    """

    columns: Row
    messages: list[dict[str, str]] = field(default_factory=list)
    rewards: list[float | None] = field(default_factory=list)
    judged: int | None = None

    def say(self, role: str, text: str, reward: float | None = 0.0) -> None:
        """Add a turn; what one role says in several turns is one message, with the reward of the last of them."""
        text = " ".join(text.split())
        if not text:
            raise DataError(f"a turn of the {role} is empty; expected text; fix or drop the row")
        if not self.messages and role == "assistant":
            self.messages.append({"role": "user", "content": START})
        if self.messages and self.messages[-1]["role"] == role:
            self.messages[-1]["content"] += f" {text}"
        else:
            self.messages.append({"role": role, "content": text})
            self.rewards += [reward] if role == "assistant" else []
        if role == "assistant":
            self.rewards[-1] = reward

    def scored(self) -> "Conversation":
        """As far as it is judged."""
        if self.judged is None:
            return self
        return replace(self, messages=self.messages[: 2 * self.judged], rewards=self.rewards[: self.judged])

    def row(self, characters: int) -> Row:
        """The row, from the oldest user message on with which it has at most so many characters."""
        kept = sum(2 + len(message["content"]) for message in self.messages)
        first = 0
        while kept > characters and first + 2 < len(self.messages) - 1:
            kept -= sum(2 + len(message["content"]) for message in self.messages[first : first + 2])
            first += 2
        return {
            "messages": self.messages[first:],
            "rewards": self.rewards[first // 2 :],
            "terminated": True,
            "dropped": first,
            "total": math.fsum(reward for reward in self.rewards if reward is not None),
            **self.columns,
        }


def deal(row: Row) -> Conversation:
    """Deal or No Deal: the assistant is YOU, and its points stand at the last thing that it said.

    The set has a game twice, once from either side: `game` is the same in both rows.

    What both entered is known only where they agreed. There the split follows, to be imitated: were it judged as well,
    `take` would be the sign of a game that went well, for in the others it is missing.
    """
    talk = [turn.strip().split(":", 1)[-1] for turn in row["dialogue"].split("<eos>")]
    game = hashlib.sha256(json.dumps([row["counts"], talk]).encode()).hexdigest()[:12]
    conversation = Conversation({"status": row["status"], "game": game})
    # Who opens: THEM, in the message that also states the game, or YOU, right after it.
    conversation.say("user", stated(row["counts"], row["values"]))
    for turn in row["dialogue"].split("<eos>"):
        who, said = turn.strip().split(":", 1)
        role = {"YOU": "assistant", "THEM": "user"}.get(who)
        if role is None:
            raise DataError(f"column 'dialogue' has a turn of {who!r}; expected YOU or THEM; fix or drop the row")
        if SELECTION not in said:
            conversation.say(role, said)
        elif role == "user":
            conversation.say(role, SELECTION)
    if row["status"] == "disconnect":
        raise Unusable("the connection broke")
    if not conversation.rewards:
        raise Unusable("YOU said nothing")
    conversation.rewards[-1] = float(row["reward"])
    conversation.judged = len(conversation.rewards)
    if row["status"] == "agree":
        conversation.say("assistant", "take " + " ".join(map(str, row["split"])), None)
    return conversation


def city(row: Row) -> Conversation:
    """Guess My City: the assistant is the guesser and pays 1 per turn until it names the city.

    Question and answer are cut at the first question mark; of the answer's first sentence twelve words stay.
    """
    conversation = Conversation({"word": row["word"], "done": row["done"]})
    conversation.say("user", "Guess my city.")
    for number, turn in enumerate(row["turns"], start=1):
        asked, mark, answer = turn.partition("?")
        if not mark or not answer.strip():
            raise Unusable(f"turn {number} has no question mark with an answer after it")
        won = row["done"] and number == len(row["turns"])
        conversation.say("assistant", PREAMBLE.sub("", asked.strip()) + "?", 0.0 if won else -1.0)
        if number < len(row["turns"]):
            sentence = re.split(r"(?<=[.!?]) ", answer.strip())[0]
            conversation.say("user", " ".join(sentence.split()[:WORDS]))
    return conversation


def persuasion(row: Row) -> Conversation:
    """Persuasion for Good: the assistant persuades, and is rewarded with what the other gave, at most 2 dollars."""
    given = row["donation_persuadee"]
    if given is not None and not given >= 0:
        raise DataError(f"column 'donation_persuadee' is {given}; expected dollars >= 0, or null; fix or drop the row")
    conversation = Conversation({"given": given})
    for turn in row["turns"]:
        conversation.say({"persuader": "assistant", "persuadee": "user"}[turn["role"]], turn["text"])
    if given is None:
        raise Unusable("nobody knows what was given", conversation)
    conversation.rewards[-1] = min(given, 2.0)
    return conversation


def satisfaction(row: Row) -> Conversation:
    """User Satisfaction: the assistant is the system; the mean rating of the user turn that follows, less 3.

    The conversation is judged up to the last turn that somebody rated: what comes later earned nothing that is known.
    """
    conversation = Conversation({"corpus": row["id"].split("-")[0], "overall": row["overall"]})
    ratings: list[int] = []
    for turn in row["turns"]:
        if turn["role"] == "user":
            conversation.say("user", turn["text"])
            ratings += turn["satisfaction"]
            if conversation.rewards and ratings:
                conversation.rewards[-1] = sum(ratings) / len(ratings) - 3
        else:
            conversation.say("assistant", turn["text"], None)
            ratings = []
    rated = [number for number, reward in enumerate(conversation.rewards, start=1) if reward is not None]
    if not rated:
        raise Unusable("no system turn is followed by a rating", conversation)
    conversation.judged = rated[-1]
    return conversation


class Unusable(Exception):
    """A row that is no scored episode; what it holds may still be read as text."""

    def __init__(self, reason: str, conversation: Conversation | None = None) -> None:
        super().__init__(reason)
        self.conversation = conversation


@dataclass(frozen=True)
class Source:
    """Where a set is, how its rows are read, the key that decides about `dev`, and the most characters of a row."""

    folder: str
    files: dict[str, str]
    read: Callable[[Row], Conversation]
    characters: int
    key: Callable[[Row], str] | None = None


THREE = {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"}
TWO = {"train": "train.jsonl", "test": "test.jsonl"}
SETS = {
    "deal": Source("deal_or_no_deal", THREE | {"dev": "val.jsonl"}, deal, 1200),
    "city": Source("guess_my_city", TWO, city, 3000, lambda row: row["word"]),
    "persuasion": Source("persuasion_for_good", TWO, persuasion, 1600, lambda row: f"pfg{row['id']}"),
    "satisfaction": Source("user_satisfaction", THREE, satisfaction, 1400),
}


def main(sets: str, output: str) -> None:
    for name, source in SETS.items():
        parts: dict[str, list[Row]] = {"train": [], "dev": [], "test": []}
        clones: dict[str, list[Row]] = {"train": [], "dev": [], "test": []}
        texts: list[Row] = []
        for part, file in source.files.items():
            path, unusable = Path(sets) / source.folder / file, 0
            for number, row in rows(path):
                place = part if part != "train" or source.key is None or not held_out(source.key(row)) else "dev"
                try:
                    made = checked(source.read, row, f"{path} row {number}")
                    parts[place].append(made.scored().row(source.characters))
                    clones[place].append(made.row(source.characters))
                except Unusable as error:
                    made, unusable = error.conversation, unusable + 1
                    print(f"{path} row {number} is left out: {error}", file=sys.stderr)
                if place == "train" and made is not None:
                    texts.append({"text": text(made.row(source.characters)["messages"])})
            print(f"{name}: {unusable} rows of {path.name} are no scored episodes")
        imitated = {"clone": clones["train"], "clone_dev": clones["dev"]}
        chosen = {"best": best(clones["train"]), "best_dev": best(clones["dev"])}
        write(Path(output) / name, parts | imitated | chosen | {"texts": texts})


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The rows of a file, from 1."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected the set's rows; give the folder that holds the sets")
    for number, line in enumerate(path.read_text("utf-8").rstrip("\n").split("\n"), start=1):
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path} row {number}: is not valid JSON ({error.msg}); fix or drop the line") from error


def checked(read: Callable[[Row], Conversation], row: Row, place: str) -> Conversation:
    """The row's conversation; raises `DataError` with file and row for whatever is wrong with it."""
    try:
        return read(row)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{place}: {type(error).__name__} {error}; expected the columns of the set's README") from error


def held_out(key: str) -> bool:
    """Whether a training row belongs to dev, by the rule that made the sets' test files (0 there, 1 here)."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:12], 16) % 10 == 1


def value(row: Row) -> float:
    """The sum of what is rated."""
    return math.fsum(reward for reward in row["rewards"] if reward is not None)


def best(rows: list[Row]) -> list[Row]:
    """The tenth with the highest returns of whole conversations, and all that equal the last of them."""
    least = sorted((row["total"] for row in rows), reverse=True)[max(len(rows) // 10 - 1, 0)]
    return [row for row in rows if row["total"] >= least]


def text(messages: list[dict[str, str]]) -> str:
    """The conversation as the template writes it, without a last end token, which pretraining adds."""
    return TEMPLATE.render(messages=messages, eos_token=END).removesuffix(END)


def write(folder: Path, parts: dict[str, list[Row]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        cut = sum(bool(row.get("dropped")) for row in rows)
        mean = f", mean return {sum(map(value, rows)) / len(rows):.3f}" if part != "texts" else ""
        print(f"{folder.name}/{part}.jsonl: {len(rows)} rows{mean}, {cut} cut to their newest turns")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except DataError as error:
        sys.exit(f"rows.py: error: {error}")
