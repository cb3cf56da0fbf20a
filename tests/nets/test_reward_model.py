"""A tiny random classifier as a reward."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from tokenq.errors import ConfigError
from tokenq.nets.reward_model import SequenceClassifierReward

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "good", "bad", "film", "very"]
CONTEXT = 12
TEMPLATE = "{% for m in messages %}[CLS] {{ m['content'] }} [SEP] {% endfor %}"


def tokenizer(**special) -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", **special)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("judge")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=CONTEXT,
        num_labels=2,
        initializer_range=1.0,
    )
    BertForSequenceClassification(config).save_pretrained(path)
    tokenizer(pad_token="[PAD]").save_pretrained(path)
    return path


def logit(folder, ids: list[int]) -> float:
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    return model(input_ids=torch.tensor([ids])).logits[0, 0].item()


def test_the_reward_is_the_first_logit_of_prompt_and_completion(folder) -> None:
    reward = SequenceClassifierReward(str(folder))
    answers = reward(prompts=["very", "film "], completions=[" good film", "bad"], trainer_state=None)
    expected = [logit(folder, [1, 7, 4, 6, 2]), logit(folder, [1, 6, 5, 2])]
    assert answers == pytest.approx(expected, abs=1e-5)
    assert expected[0] != pytest.approx(expected[1], abs=1e-2)
    assert reward.__name__ == folder.name


def test_the_batch_size_changes_nothing(folder) -> None:
    prompts, completions = ["good ", "bad very ", "film "], ["film", "bad bad bad", "good"]
    together = SequenceClassifierReward(str(folder))(prompts, completions)
    alone = SequenceClassifierReward(str(folder), batch_size=1)(prompts, completions)
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_long_prompt_loses_its_beginning(folder) -> None:
    answer = SequenceClassifierReward(str(folder))(["bad " * 20], ["good"])
    assert answer == pytest.approx([logit(folder, [1] + [5] * (CONTEXT - 3) + [4, 2])], abs=1e-5)


def test_conversations_without_a_template_are_joined_by_newlines(folder) -> None:
    prompt = [{"role": "user", "content": "film"}]
    answer = SequenceClassifierReward(str(folder))([prompt], [[{"role": "assistant", "content": "good"}]])
    assert answer == pytest.approx([logit(folder, [1, 6, 4, 2])], abs=1e-5)


def test_conversations_go_through_the_template_which_owns_the_special_tokens(folder, tmp_path) -> None:
    BertForSequenceClassification.from_pretrained(folder).save_pretrained(tmp_path)
    tokenizer(pad_token="[PAD]", chat_template=TEMPLATE).save_pretrained(tmp_path)
    prompt = [{"role": "user", "content": "film"}]
    answer = SequenceClassifierReward(str(tmp_path))([prompt], [[{"role": "assistant", "content": "good"}]])
    assert answer == pytest.approx([logit(folder, [1, 6, 2, 1, 4, 2])], abs=1e-5)


def llama() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(WORDS), hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )


def test_a_decoder_without_padding_token_scores_batches(tmp_path) -> None:
    torch.manual_seed(0)
    LlamaForSequenceClassification(llama()).save_pretrained(tmp_path)
    tokenizer(eos_token="[SEP]").save_pretrained(tmp_path)
    reward = SequenceClassifierReward(str(tmp_path))
    short, long = reward(["good", "bad"], ["", " very film"])
    assert reward(["good"], [""]) == pytest.approx([short], abs=1e-6)
    assert short != long


def test_a_language_model_is_no_reward(tmp_path) -> None:
    LlamaForCausalLM(llama()).save_pretrained(tmp_path)
    tokenizer(eos_token="[SEP]").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"lacks score\.weight, so its scores would be random"):
        SequenceClassifierReward(str(tmp_path))


def test_a_tokenizer_that_cannot_pad_is_an_error(folder, tmp_path) -> None:
    BertForSequenceClassification.from_pretrained(folder).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no padding token"):
        SequenceClassifierReward(str(tmp_path))


def test_a_missing_folder_is_an_error_in_one_line(tmp_path) -> None:
    with pytest.raises(ConfigError, match="expected a sequence classifier") as caught:
        SequenceClassifierReward(str(tmp_path / "nothing"))
    assert "\n" not in str(caught.value)


def test_the_batch_size_is_positive(folder) -> None:
    with pytest.raises(ConfigError, match=r"batch_size .* got 0"):
        SequenceClassifierReward(str(folder), batch_size=0)
