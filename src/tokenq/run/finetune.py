"""Fine-tune: a language model, classifier or reader of spans from right answers, and nothing else."""

from pathlib import Path

from tokenq.config.train import TrainConfig
from tokenq.errors import ConfigError
from tokenq.nets import loading
from tokenq.run.folder import claim, run_folder, whole_folder
from tokenq.run.given import Given
from tokenq.run.models import load_start, load_tokenizer, make_start
from tokenq.run.seeding import seed_everything


def finetune(config: TrainConfig) -> Path:
    """Fine-tune as the configuration's `finetune` part says, after pretraining, if it asks for that as well."""
    if config.finetune.max_steps == 0:
        raise ConfigError("finetune.max_steps: got 0, expected the number of updates to make")
    return supervise(config)


def supervise(config: TrainConfig) -> Path:
    """The supervised stages of a run; the folder of the model that they leave."""
    given = Given()
    folder = run_folder(config, "texts")
    seed_everything(config.seed)
    tokenizer = load_tokenizer(config, given, folder)
    model = load_start(config, given, tokenizer, folder)
    claim(folder, config)
    model = make_start(config, given, tokenizer, model, folder)
    with whole_folder(folder / "model") as place:
        loading.save_model(model, tokenizer, place)
    print(f"model is in {folder / 'model'}")
    return folder / "model"
