"""Episodes and tokenizers small enough to check by hand."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tokenq.types import Episode, ReferenceRecord

MakeEpisode = Callable[..., Episode]

TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}"
    "{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)


def _record(n: int, k: int, rng: np.random.Generator) -> ReferenceRecord:
    return ReferenceRecord(
        logit=rng.normal(size=n).astype(np.float32),
        logsumexp=rng.normal(size=n + 1).astype(np.float32),
        plausible=rng.integers(0, 50, size=(n + 1, k)),
        plausible_logit=rng.normal(size=(n + 1, k)).astype(np.float32),
    )


@pytest.fixture(scope="session")
def make_episode() -> MakeEpisode:
    """An episode of the given tokens whose last `n` tokens are decisions, with a record of k plausible tokens."""

    def make(tokens: list[int], n: int = 1, terminated: bool = True, k: int | None = 2) -> Episode:
        return Episode(
            tokens=np.array(tokens),
            decisions=np.arange(len(tokens) - n, len(tokens)),
            rewards=np.arange(n, dtype=np.float32),
            terminated=terminated,
            record=None if k is None else _record(n, k, np.random.default_rng(len(tokens))),
        )

    return make


@pytest.fixture(scope="session")
def any_episode() -> st.SearchStrategy[Episode]:
    """Every shape of episode: gaps between decisions, NaN rewards, both float types, with and without record."""
    json_values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just([1, {}])

    @st.composite
    def draw_episode(draw: st.DrawFn) -> Episode:
        decisions = sorted(draw(st.sets(st.integers(1, 12), min_size=1, max_size=6)))
        length = draw(st.integers(decisions[-1] + 1, 16))
        n, seed = len(decisions), draw(st.integers(0, 1000))
        rng = np.random.default_rng(seed)
        floats = st.floats(-100, 100, width=32) | st.just(float("nan"))
        return Episode(
            tokens=rng.integers(0, 50, size=length).astype(draw(st.sampled_from([np.int32, np.int64]))),
            decisions=np.array(decisions),
            rewards=np.array(
                draw(st.lists(floats, min_size=n, max_size=n)), dtype=draw(st.sampled_from([np.float32, np.float64]))
            ),
            terminated=draw(st.booleans()),
            record=_record(n, draw(st.integers(0, 3)), rng) if draw(st.booleans()) else None,
            columns=draw(st.dictionaries(st.text(max_size=5), json_values, max_size=3)),
        )

    return draw_episode()


@pytest.fixture(scope="session")
def characters() -> PreTrainedTokenizerFast:
    """One token per character: <s> 0, </s> 1, <unk> 2, a 3, b 4, ... z 28, then space, newline and colon."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", "<unk>", *letters, " ", "\n", ":"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return _wrapped(tokenizer)


@pytest.fixture(scope="session")
def chatty(characters: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same with a chat template: `u:hi`, newline, `a:yo</s>`, newline."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=characters.backend_tokenizer, **_SPECIAL)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture(scope="session")
def enclosing() -> PreTrainedTokenizerFast:
    """Tokens a 2, b 3, c 4, d 5 and the merged bc 6; adds <s> in front and </s> behind by itself."""
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", "a", "b", "c", "d", "bc"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("b", "c")]))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair=None, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return _wrapped(tokenizer)


_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_SPECIAL)
