"""What every test shares: one thread, no network, tiny models, and the optional folder of larger test data."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tokenq.nets.language import LanguageQ
from tokenq.nets.loading import character_tokenizer
from tokenq.nets.reference import Reference
from tokenq.replay.buffer import Sample
from tokenq.replay.collate import collate
from tokenq.types import Batch, Episode

torch.set_num_threads(1)

SHARED_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


ELSEWHERE = """
import sys, torch
sys.modules["tokenq"] = None  # as if it were not installed
from transformers import AutoModelForCausalLM, pipeline
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules.")
torch.save(model(torch.arange(5).unsqueeze(0)).logits, sys.argv[1] + "/logits.pt")
write = pipeline("text-generation", sys.argv[1], trust_remote_code=True, max_new_tokens=4, do_sample=False)
print("|".join(row[0]["generated_text"] for row in write(["ab", "cabc"], batch_size=2)))
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Callable[[Path], tuple[torch.Tensor, str]]:
    """Of a checkpoint, where tokenq is not installed: logits of the tokens 0 to 4, and greedy texts, joined by bars."""

    def read(folder: Path) -> tuple[torch.Tensor, str]:
        # As many threads as here, for they decide how sums are rounded.
        own = {"HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-I", "-c", ELSEWHERE, str(folder)]
        ran = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return torch.load(folder / "logits.pt"), ran.stdout.strip()

    return read


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of larger test data beside the repository; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the test data in {SHARED_DATA.resolve()}")
    return SHARED_DATA.resolve()


FAMILIES: dict[str, tuple[type[PreTrainedModel], type[PreTrainedConfig], dict[str, Any]]] = {
    "gpt2": (GPT2LMHeadModel, GPT2Config, {"resid_pdrop": 0.1}),
    "llama": (LlamaForCausalLM, LlamaConfig, {"num_key_value_heads": 1}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"num_key_value_heads": 1, "head_dim": 8}),
    "opt": (OPTForCausalLM, OPTConfig, {"ffn_dim": 32, "word_embed_proj_dim": 16, "init_std": 0.3}),
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig, {}),
    "gemma2": (
        Gemma2ForCausalLM,
        Gemma2Config,
        {"num_key_value_heads": 1, "head_dim": 8, "attn_implementation": "eager"},
    ),
    "cohere": (CohereForCausalLM, CohereConfig, {"num_key_value_heads": 1}),
}


@pytest.fixture(scope="session")
def tiny() -> Callable[..., PreTrainedModel]:
    """A random model of a family: 2 layers, width 16, logits of order 1."""

    def make(family: str = "gpt2", vocabulary: int = 31, seed: int = 0, **changes: Any) -> PreTrainedModel:
        model, config, own = FAMILIES[family]
        torch.manual_seed(seed)
        return model(
            config(
                **{
                    "vocab_size": vocabulary,
                    "hidden_size": 16,
                    "intermediate_size": 32,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "max_position_embeddings": 64,
                    "initializer_range": 0.3,
                    "bos_token_id": 0,
                    "eos_token_id": 0,
                    "pad_token_id": 0,
                    **own,
                    **changes,
                }
            )
        )

    return make


@pytest.fixture(scope="session")
def encoder_decoder() -> PreTrainedModel:
    """A random T5: 1 layer, width 16, 31 tokens of which 0 starts the decoder, logits of order 1."""
    torch.manual_seed(0)
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=31, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0,
            pad_token_id=0, eos_token_id=1, tie_word_embeddings=False, initializer_factor=3.0,
        )
    ).eval()  # fmt: skip


SYMBOLS = "abcdefgh .:|"


@pytest.fixture(scope="session")
def checkpoint(tiny: Callable[..., PreTrainedModel], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A folder with a random model of a family (1 layer, width 16) and a tokenizer of one token a character."""

    def make(family: str = "gpt2", **changes: Any) -> str:
        folder = tmp_path_factory.mktemp(family)
        end = len(SYMBOLS)
        ends = {"eos_token_id": end, "bos_token_id": end, "pad_token_id": end + 1}
        tiny(family, end + 2, num_hidden_layers=1, **ends, **changes).save_pretrained(folder)
        character_tokenizer(SYMBOLS).save_pretrained(folder)
        return str(folder)

    return make


@pytest.fixture(scope="session")
def random_episodes() -> Callable[..., list[Episode]]:
    """Episodes of 1 to 4 prompt tokens and 1 to 6 decisions with normal rewards; every third one is truncated."""

    def make(n: int, vocabulary: int = 31, seed: int = 0, unrated: float = 0.0) -> list[Episode]:
        rng = np.random.default_rng(seed)
        episodes = []
        for i in range(n):
            prompt, length = rng.integers(1, 5), rng.integers(1, 7)
            rewards = rng.normal(size=length)
            rewards[rng.random(length) < unrated] = np.nan
            episodes.append(
                Episode(
                    tokens=rng.integers(0, vocabulary, size=prompt + length),
                    decisions=np.arange(prompt, prompt + length),
                    rewards=rewards,
                    terminated=i % 3 != 2,
                )
            )
        return episodes

    return make


@pytest.fixture(scope="session")
def recorded() -> Callable[..., Batch]:
    """The batch of some episodes, with the record of a reference network as it is now."""

    def make(reference: LanguageQ, episodes: Sequence[Episode], plausible: int = 0) -> Batch:
        n = len(episodes)
        record = Reference(reference, plausible).record(episodes)
        return collate(Sample(record, np.arange(n), np.ones(n, np.float32)), pad_token=0)

    return make
