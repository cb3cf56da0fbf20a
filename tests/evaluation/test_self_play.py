"""Self-play: figures over games with scripted players, and a model as a player."""

from collections.abc import Callable

import pytest
from transformers import PreTrainedModel

from tokenq.acting.explore import Greedy
from tokenq.acting.rollout import Writer
from tokenq.envs.negotiation import SELECTION, Agreeable, Scenario, Stubborn
from tokenq.evaluation.self_play import Speaker, self_play
from tokenq.nets.language import LanguageQ
from tokenq.nets.loading import character_tokenizer
from tokenq.replay.codecs import Joint

GAMES = [Scenario((1, 0, 0), (10, 0, 0), (10, 0, 0)), Scenario((2, 1, 0), (1, 8, 0), (0, 10, 0))]


def greedy(messages: list[dict[str, str]]) -> str:
    """Announces that it takes the first item, then does; concedes everything to who entered first."""
    if messages[-1]["content"] == SELECTION:
        return "take 0 0 0"
    return "take 1 0 0" if len(messages) > 1 else "i take 1 0 0"


def test_figures_over_games() -> None:
    """With one who agrees: 10 and 1 point. With one who takes all after a word, none, but an agreement."""
    found = self_play(greedy, Agreeable(), GAMES, games=4, seed=0)
    assert found["points"].value == 5.5 and found["partner_points"].value == 5.0
    assert found["agreement_rate"].value == 1.0 and found["points_per_agreement"].value == 5.5
    against = self_play(greedy, Stubborn(turns=0), GAMES, games=4, seed=0)
    assert against["points"].value == 0.0 and against["agreement_rate"].value == 1.0
    never = self_play(lambda _: "hm", lambda _: "hm", GAMES, games=4, seed=0)
    assert never["agreement_rate"].value == 0.0 and never["points_per_agreement"].n == 0


def test_a_model_plays_and_forgets_what_its_context_cannot_hold(tiny: Callable[..., PreTrainedModel]) -> None:
    tokenizer = character_tokenizer("abcdefghijklmnopqrstuvwxyz0123456789 .,<>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    network = LanguageQ(tiny("gpt2", vocabulary=len(tokenizer)))
    speaker = Speaker(Writer(network, Joint(tokenizer, [tokenizer.eos_token_id]), context=64), Greedy(), 5)
    conversation = [{"role": role, "content": "a" * 20} for role in ("user", "assistant", "user", "assistant", "user")]
    assert len(speaker(conversation)) <= 5
    assert speaker(conversation) == speaker([conversation[0], *conversation[3:]])
    found = self_play(speaker, Agreeable(), GAMES, games=2, seed=0)
    assert found["agreement_rate"].value == pytest.approx(0.0)
