"""A finished run, read back from its folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenq.acting.rollout import Writer
from tokenq.config.train import TrainConfig
from tokenq.errors import ConfigError
from tokenq.learning.offline import Guided
from tokenq.nets import loading
from tokenq.nets.encoder import QNetwork
from tokenq.nets.heads import load_q_heads
from tokenq.nets.language import context_length
from tokenq.nets.ngram import HEADER
from tokenq.run.control import is_agent
from tokenq.run.folder import finished_config
from tokenq.run.models import START, codec_of


@dataclass(frozen=True, eq=False)
class Loaded:
    """The configuration, tokenizer and trained model of a run."""

    config: TrainConfig
    tokenizer: Any
    network: QNetwork
    writer: Writer
    folder: Path

    def start(self) -> QNetwork | None:
        """The model that training started from; None if it was handed over as an object."""
        own = self.folder / START
        path = str(own) if own.is_dir() else self.config.model
        if path is None:
            return None
        return loading.q_network(loading.load_model(path, self.config.dtype, self.config.trust_remote_code))


def load_run(run: str, beta: float | None = None) -> Loaded:
    """Read a finished run; `beta` is how much its Q heads have to say, None for as much as while it trained.

    Raises `CheckpointError` if `run` is not the folder of one, `ConfigError` for a `beta` without Q heads.
    """
    if is_agent(run):
        raise ConfigError(f"got {run}, which is an agent, expected the run of a language model; see tokenq evaluate")
    folder = Path(run)
    model = folder / "model"
    if (model / HEADER).is_file():
        raise ConfigError(
            f"got {run}, which is an n-gram model, expected the run of a language model that writes; of this one "
            "perplexity alone can be measured: tokenq evaluate RUN --metrics perplexity --dataset FILE"
        )
    config = replace(finished_config(TrainConfig, run), resume=False)
    trusted = config.trust_remote_code
    tokenizer = loading.load_tokenizer(str(model), config.chat_template, trusted)
    q_heads = None
    if isinstance(config.objective, Guided):
        guidance = config.objective.guidance
        said = guidance.beta if beta is None else beta
        q_heads = load_q_heads(model, said, guidance.top_k, guidance.min_p)
    elif beta is not None:
        raise ConfigError(f"beta: got {beta} for {run}, which was trained without Q heads; leave --beta out")
    network = loading.q_network(loading.load_model(str(model), config.dtype, trusted), q_heads=q_heads)
    network.to(network.causal.device)
    codec = codec_of(network.causal, tokenizer, config.turns_seen)
    writer = Writer(network, codec, context_length(network.causal))
    return Loaded(config, tokenizer, network, writer, folder)
