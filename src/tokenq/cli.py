"""The command `tokenq`: read the command line, import what the verb needs, call one function.

Nothing heavy is imported before the verb is known. Exit status: 0 done, 2 the user's mistake or a file, disk or
network that refuses, 1 a fault of ours, 130 interrupted; every error that tokenq raises on purpose is one line.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from tokenq import __version__
from tokenq.errors import ConfigError, TokenqError, UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status. `argv` defaults to the program's arguments."""
    try:
        _dispatch(list(sys.argv[1:] if argv is None else argv))
    except TokenqError as error:
        print(f"tokenq: error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing more may be written to it, at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        said = " ".join(str(error).split())
        print(f"tokenq: error: {said}; check the file, the disk or the network", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tokenq: interrupted", file=sys.stderr)
        return 130
    return 0


def _dispatch(argv: list[str]) -> None:
    verb, rest = (argv[0], argv[1:]) if argv else ("", [])
    if verb in ("-h", "--help"):
        print(_usage())
    elif verb == "--version":
        print(f"tokenq {__version__}")
    elif verb in VERBS:
        VERBS[verb][0](rest)
    else:
        close = get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see tokenq --help"
        raise ConfigError(
            f"got {f'command {verb!r}' if verb else 'no command'}, expected one of {', '.join(VERBS)}; {hint}"
        )


def _usage() -> str:
    commands = "\n".join(f"  {verb:<10} {summary}" for verb, (_, summary) in VERBS.items())
    return (
        "usage: tokenq COMMAND ...\n\nTrain language models from scores with deep Q-learning.\n\n"
        f"commands:\n{commands}\n\noptions:\n  --help     Show this text; after a command, its options.\n"
        "  --version  Show the version."
    )


def _run(verb: str, schema: str, argv: list[str], module: str) -> None:
    """Call the function `tokenq.run.<module>.<module>` with the configuration that the command line asks for."""
    from tokenq.config.parse import parse

    config_class = getattr(importlib.import_module(f"tokenq.config.{schema}"), f"{schema.capitalize()}Config")
    config = parse(argv, config_class, f"tokenq {verb}")
    from tokenq.nets.loading import quiet

    quiet()
    getattr(importlib.import_module(f"tokenq.run.{module}"), module)(config)


def _train(argv: list[str]) -> None:
    """A language model, or an agent where there is an environment."""
    from tokenq.config.parse import names

    kind = "control" if names(argv, "environment") else "train"
    _run("train", kind, argv, kind)


def _env(argv: list[str]) -> None:
    if argv in (["-h"], ["--help"]):
        print("usage: tokenq env\n\nShow the versions that a report of a fault should name.")
        return
    if argv:
        raise ConfigError(f"got {' '.join(argv)!r}, expected nothing after tokenq env")
    import platform

    from tokenq.run.report import versions

    for name, version in {"platform": platform.platform(), **versions(), "tokenq": __version__}.items():
        print(f"{name}: {version or 'not installed'}")


def _verb(verb: str, schema: str | None = None) -> Callable[[list[str]], None]:
    return lambda argv: _run(verb, schema or verb, argv, verb)


VERBS: dict[str, tuple[Callable[[list[str]], None], str]] = {
    "train": (
        _train,
        "Train a model from scores, or an agent on an `environment`; every run is one folder.",
    ),
    "evaluate": (
        _verb("evaluate"),
        "Measure what a run learned, against the model it started from.",
    ),
    "generate": (_verb("generate"), "Let the model of a run answer prompts."),
    "pretrain": (_verb("pretrain", "train"), "Train a model on texts alone; also small ones from scratch."),
    "finetune": (_verb("finetune", "train"), "Train a model on right answers."),
    "prepare": (_verb("prepare"), "Clean, deduplicate, split and tokenise text data."),
    "tune": (_verb("tune"), "Search for better settings of a training run."),
    "env": (_env, "Show the versions that a report of a fault should name."),
}
