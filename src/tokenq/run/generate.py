"""Generate: complete prompts with a finished run."""

import torch

from tokenq.acting.explore import Boltzmann, Greedy
from tokenq.config.generate import GenerateConfig
from tokenq.errors import ConfigError
from tokenq.run.loaded import load_run


def generate(config: GenerateConfig) -> list[str]:
    """Print and return one text for each prompt and generation, prompt included."""
    if not config.prompt:
        raise ConfigError("prompt: got none, expected at least one; write --prompt TEXT")
    run = load_run(config.run, config.beta)
    chat = run.tokenizer.chat_template is not None
    torch.manual_seed(config.seed)
    rows = [{"prompt": [{"role": "user", "content": text}] if chat else text} for text in config.prompt]
    length = config.max_completion_length or run.config.max_completion_length
    prompts = [run.writer.prompt(row, length) for row in rows for _ in range(config.num_generations)]
    exploration = Greedy() if config.greedy else Boltzmann(config.temperature, config.top_k, config.top_p)
    completions = run.writer.complete(prompts, exploration, length, 0)
    texts = [
        ("" if chat else prompt.text) + run.writer.codec.text(prompt, tokens)
        for prompt, tokens in zip(prompts, completions, strict=True)
    ]
    for text in texts:
        print(text)
    return texts
