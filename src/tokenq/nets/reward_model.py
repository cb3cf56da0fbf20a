"""A Hugging Face sequence classifier as a reward function."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tokenq.errors import ConfigError

Text = str | list[dict[str, Any]]


class SequenceClassifierReward:
    """Scores prompt and completion together; the reward is the classifier's first logit.

    Conversations are rendered with the classifier's own chat template, or, where it has none, as the contents of their
    messages joined by newlines. What is longer than the classifier's context loses its beginning, so that the
    completion is always judged.

    Args:
        path: A folder or hub id that AutoModelForSequenceClassification and AutoTokenizer load.
        batch_size: Texts per forward pass; it changes speed and memory only.
        device: Where the classifier runs.
        trust_remote_code: Whether to run model code that comes with the checkpoint.

    Raises:
        ConfigError: Nothing to load at `path`, a checkpoint without a trained classification head, or a tokenizer with
            neither padding nor end-of-sequence token.
    """

    def __init__(
        self,
        path: str,
        batch_size: int = 32,
        device: torch.device | str = "cpu",
        trust_remote_code: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size of reward model {path}: got {batch_size}, expected a whole number >= 1")
        self.__name__ = Path(path).name
        self._batch_size = batch_size
        self._device = torch.device(device)
        self._model, self._tokenizer = _load(path, trust_remote_code)
        self._model.to(self._device)
        self._context = _context(self._model, self._tokenizer)

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **_: Any) -> list[float]:
        """The first logit of every prompt followed by its completion."""
        texts = [self._text(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        # A template writes the special tokens itself; plain text gets those the classifier was trained with.
        templated = self._tokenizer.chat_template is not None and any(not isinstance(prompt, str) for prompt in prompts)
        batches = (texts[start : start + self._batch_size] for start in range(0, len(texts), self._batch_size))
        return [logit for batch in batches for logit in self._first_logits(batch, not templated)]

    def _text(self, prompt: Text, completion: Text) -> str:
        if isinstance(prompt, str) and isinstance(completion, str):
            return prompt + completion
        opening = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        answer = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
        messages = opening + answer
        if self._tokenizer.chat_template is None:
            return "\n".join(message["content"] for message in messages)
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False))

    @torch.inference_mode()
    def _first_logits(self, texts: list[str], add_special_tokens: bool) -> list[float]:
        encoded = self._tokenizer(
            texts,
            add_special_tokens=add_special_tokens,
            padding=True,
            truncation=self._context is not None,
            max_length=self._context,
            return_tensors="pt",
        ).to(self._device)
        logits = self._model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits
        return [float(logit) for logit in logits[:, 0]]


def _load(path: str, trust_remote_code: bool) -> tuple[Any, Any]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, padding_side="right", truncation_side="left", trust_remote_code=trust_remote_code
        )
        model, report = AutoModelForSequenceClassification.from_pretrained(
            path, output_loading_info=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"reward model {path}: expected a sequence classifier and its tokenizer; {reason}") from error
    if missing := sorted(report["missing_keys"]):
        raise ConfigError(
            f"reward model {path}: the checkpoint lacks {', '.join(missing)}, so its scores would be random; "
            "expected a trained sequence classifier"
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ConfigError(f"reward model {path}: its tokenizer has no padding token; set `pad_token` in its files")
        tokenizer.pad_token = tokenizer.eos_token
    # Decoder classifiers find the last real token by it.
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), tokenizer


def _context(model: Any, tokenizer: Any) -> int | None:
    """The longest input in tokens; None where neither the model nor its tokenizer has a limit."""
    limits = (getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length)
    # A tokenizer without a limit reports a number with thirty digits.
    return min((limit for limit in limits if limit is not None and limit < 10**9), default=None)
