"""Pretrain: a language model by next-token prediction, and nothing else."""

from pathlib import Path

from tokenq.config.train import TrainConfig
from tokenq.errors import ConfigError
from tokenq.nets.language import LanguageQ
from tokenq.nets.loading import save_model
from tokenq.run.data import load_data
from tokenq.run.folder import claim, run_folder, whole_folder
from tokenq.run.given import Given
from tokenq.run.models import load_start, load_tokenizer, make_start
from tokenq.run.seeding import seed_everything


def pretrain(config: TrainConfig) -> Path:
    """Pretrain as the configuration's `pretrain` part says; the folder of the model, which `model` may then name."""
    if config.pretrain.max_steps == 0:
        raise ConfigError("pretrain.max_steps: got 0, expected the number of updates to make")
    given = Given()
    data = load_data(config, given)
    tokenizer = load_tokenizer(config, given)
    folder = run_folder(config, data.name)
    seed_everything(config.seed)
    model = load_start(config, given, tokenizer, folder)
    claim(folder, config)
    model = make_start(config, given, data, tokenizer, model, folder)
    with whole_folder(folder / "model") as place:
        save_model(LanguageQ(model), tokenizer, place)
    print(f"model is in {folder / 'model'}")
    return folder / "model"
