"""Write a file of scored texts: what a model says to the prompts of a file, with the score of a reward function.

    python examples/score_stories.py runs/scored_stories.jsonl

The rows carry the exact tokens as well as the text, so that nothing is tokenised a second time. Any texts that somebody
rated will do just as well; this only makes some.
"""

import json
import sys
from pathlib import Path

import torch
from rich.progress import track

from tokenq import Boltzmann, TrainConfig
from tokenq.acting.rewards import Rewards, TrainerState
from tokenq.acting.rollout import Writer, write_and_score
from tokenq.config.parse import from_file
from tokenq.nets import loading
from tokenq.nets.language import LanguageQ
from tokenq.replay.codecs import Joint
from tokenq.run.data import load_data
from tokenq.run.given import Given

TEXTS, BATCH = 2048, 64


def main(output: str, config_file: str = "examples/stories.yaml") -> None:
    config = from_file(TrainConfig, Path(config_file))
    data = load_data(config, Given())
    model, tokenizer = loading.load_model(str(config.model)), loading.load_tokenizer(str(config.model))
    network = LanguageQ(model)
    writer = Writer(network, Joint(tokenizer, loading.end_tokens(model, tokenizer)), loading.context_length(model))
    rewards = data.rewards
    if not isinstance(rewards, Rewards):
        raise SystemExit(f"{config_file} names no reward function")
    torch.manual_seed(config.seed)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with Path(output).open("w", encoding="utf-8") as file:
        for start in track(range(0, TEXTS, BATCH), description="writing and scoring"):
            rows = [data.prompts[(start + i) % len(data.prompts)] for i in range(BATCH)]
            prompts = [writer.prompt(row, config.max_completion_length) for row in rows]
            done = write_and_score(
                writer, prompts, rewards, Boltzmann(), config.max_completion_length, TrainerState(0, 0)
            )
            for prompt, tokens, text, score in zip(prompts, done.tokens, done.texts, done.scores.total, strict=True):
                row = {"prompt": prompt.text, "completion": text, "reward": float(score)}
                file.write(json.dumps(row | {"prompt_ids": prompt.tokens, "completion_ids": tokens}) + "\n")
    print(f"{TEXTS} scored texts are in {output}")


if __name__ == "__main__":
    main(*sys.argv[1:])
