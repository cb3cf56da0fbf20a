"""tokenq: train language models from scores with deep Q-learning.

Every public name is imported when it is first used, so `import tokenq` itself is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenq.acting.explore import Boltzmann as Boltzmann
    from tokenq.acting.explore import EpsilonGreedy as EpsilonGreedy
    from tokenq.config.control import ControlConfig as ControlConfig
    from tokenq.config.supervised import PretrainConfig as PretrainConfig
    from tokenq.config.train import ReplayConfig as ReplayConfig
    from tokenq.config.train import TrainConfig as TrainConfig
    from tokenq.envs.walks import Walks as Walks
    from tokenq.errors import CheckpointError as CheckpointError
    from tokenq.errors import ConfigError as ConfigError
    from tokenq.errors import DataError as DataError
    from tokenq.errors import Diverged as Diverged
    from tokenq.errors import RewardError as RewardError
    from tokenq.errors import TokenqError as TokenqError
    from tokenq.errors import UserError as UserError
    from tokenq.learning.distributional import C51 as C51
    from tokenq.learning.distributional import QRDQN as QRDQN
    from tokenq.learning.objectives import DQN as DQN
    from tokenq.learning.objectives import DoubleDQN as DoubleDQN
    from tokenq.learning.objectives import Munchausen as Munchausen
    from tokenq.learning.objectives import Soft as Soft
    from tokenq.learning.offline import CQL as CQL
    from tokenq.learning.offline import ILQL as ILQL
    from tokenq.learning.offline import MC as MC
    from tokenq.learning.q_lambda import QLambda as QLambda
    from tokenq.learning.scaling import PerPrompt as PerPrompt
    from tokenq.learning.scaling import RawRewards as RawRewards
    from tokenq.learning.scaling import Standardise as Standardise
    from tokenq.learning.scaling import WorstIsZero as WorstIsZero
    from tokenq.learning.sync import Adaptive as Adaptive
    from tokenq.learning.sync import NoTarget as NoTarget
    from tokenq.learning.sync import Periodic as Periodic
    from tokenq.learning.sync import Polyak as Polyak
    from tokenq.learning.sync import RandomPartial as RandomPartial
    from tokenq.learning.target import Adapter as Adapter
    from tokenq.learning.target import Full as Full
    from tokenq.learning.target import HeadOnly as HeadOnly
    from tokenq.learning.target import LastLayers as LastLayers
    from tokenq.learning.target import TargetConfig as TargetConfig
    from tokenq.learning.values import Afterstates as Afterstates
    from tokenq.learning.values import Guidance as Guidance
    from tokenq.learning.values import Head as Head
    from tokenq.learning.values import Heads as Heads
    from tokenq.learning.values import Logits as Logits
    from tokenq.learning.values import Raw as Raw
    from tokenq.nets.heads import load_q_heads as load_q_heads
    from tokenq.nets.prior_guided import PriorGuided as PriorGuided
    from tokenq.replay.buffer import Replay as Replay
    from tokenq.replay.samplers import Prioritised as Prioritised
    from tokenq.replay.samplers import Recent as Recent
    from tokenq.replay.samplers import Uniform as Uniform
    from tokenq.trainer import QTrainer as QTrainer
    from tokenq.types import Batch as Batch
    from tokenq.types import Episode as Episode

__version__ = "0.1.0"

_HOMES = {
    "Adapter": "learning.target",
    "Adaptive": "learning.sync",
    "Afterstates": "learning.values",
    "Batch": "types",
    "Boltzmann": "acting.explore",
    "C51": "learning.distributional",
    "CQL": "learning.offline",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "ControlConfig": "config.control",
    "DQN": "learning.objectives",
    "DataError": "errors",
    "Diverged": "errors",
    "DoubleDQN": "learning.objectives",
    "Episode": "types",
    "EpsilonGreedy": "acting.explore",
    "Full": "learning.target",
    "Guidance": "learning.values",
    "Head": "learning.values",
    "HeadOnly": "learning.target",
    "Heads": "learning.values",
    "ILQL": "learning.offline",
    "LastLayers": "learning.target",
    "Logits": "learning.values",
    "MC": "learning.offline",
    "Munchausen": "learning.objectives",
    "NoTarget": "learning.sync",
    "PerPrompt": "learning.scaling",
    "Periodic": "learning.sync",
    "Polyak": "learning.sync",
    "PretrainConfig": "config.supervised",
    "PriorGuided": "nets.prior_guided",
    "Prioritised": "replay.samplers",
    "QLambda": "learning.q_lambda",
    "QRDQN": "learning.distributional",
    "QTrainer": "trainer",
    "RandomPartial": "learning.sync",
    "Raw": "learning.values",
    "RawRewards": "learning.scaling",
    "Recent": "replay.samplers",
    "Replay": "replay.buffer",
    "ReplayConfig": "config.train",
    "RewardError": "errors",
    "Soft": "learning.objectives",
    "Standardise": "learning.scaling",
    "TargetConfig": "learning.target",
    "TokenqError": "errors",
    "TrainConfig": "config.train",
    "Uniform": "replay.samplers",
    "UserError": "errors",
    "Walks": "envs.walks",
    "WorstIsZero": "learning.scaling",
    "load_q_heads": "nets.heads",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tokenq' has no attribute {name!r}")
    value = getattr(import_module(f"tokenq.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
