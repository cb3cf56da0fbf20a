"""Reward functions by name, and what is said where nothing has that name."""

import pytest

from tokenq.acting.loading_by_name import load_reward
from tokenq.errors import ConfigError

SOURCE = """
from dataclasses import dataclass

LIMIT = 3

def longest(completions, **kwargs):
    return [float(len(text)) for text in completions]

@dataclass
class Capped:
    cap: int = 2

    def __call__(self, completions, **kwargs):
        return [float(min(len(text), self.cap)) for text in completions]

def times(factor):
    def scaled(completions, **kwargs):
        return [factor * len(text) for text in completions]
    return scaled
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "scoring.py"
    path.write_text(SOURCE)
    return path


def test_a_function_of_a_file(file) -> None:
    assert load_reward(f"{file}:longest")(completions=["abcd"]) == [4.0]


def test_a_function_of_a_module() -> None:
    from os.path import commonprefix

    assert load_reward("os.path:commonprefix") is commonprefix


def test_a_class_is_instantiated_with_and_without_arguments(file) -> None:
    assert load_reward(f"{file}:Capped")(completions=["abcd"]) == [2.0]
    assert load_reward({"path": f"{file}:Capped"})(completions=["abcd"]) == [2.0]
    assert load_reward({"path": f"{file}:Capped", "args": {"cap": 3}})(completions=["abcd"]) == [3.0]


def test_a_factory_is_called_with_its_arguments(file) -> None:
    assert load_reward({"path": f"{file}:times", "args": {"factor": 0.5}})(completions=["abcd"]) == [2.0]


def test_files_of_one_name_stay_apart(file, tmp_path) -> None:
    other = tmp_path / "other" / "scoring.py"
    other.parent.mkdir()
    other.write_text("def longest(**kwargs): return ['other']")
    first, second = load_reward(f"{file}:longest"), load_reward(f"{other}:longest")
    assert first(completions=["abcd"]) == [4.0]
    assert second() == ["other"]


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("longest", "got 'longest', expected 'package.module:name'"),
        (":longest", "expected 'package.module:name'"),
        ("{folder}/scorin.py:longest", r"no file .*scorin.py; did you mean 'scoring.py'\?"),
        ("{folder}/zzz.py:longest", "there is broken.py, scoring.py"),
        ("{folder}/none/zzz.py:longest", "there is none"),
        ("{folder}/scoring.py:longst", r"has no 'longst'; did you mean 'longest'\?"),
        ("{folder}/scoring.py:zzz", "there is Capped, longest, times"),
        ("{folder}/scoring.py:LIMIT", "is int, expected something that can be called"),
        ("{folder}/broken.py:f", "importing '.*broken.py:f' failed: ZeroDivisionError: division by zero"),
        ("no_such_package.part:f", "no module 'no_such_package'; install it"),
        ("json.no_such_part:f", "no module 'json.no_such_part'"),
        ({"path": "{folder}/scoring.py:times", "args": {"factr": 1}}, "with .*'factr': 1.* failed: TypeError"),
        ({"path": "{folder}/scoring.py:times", "arg": {}}, "expected {path: ..., args"),
        ({"args": {}}, "expected {path: ..., args"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_in_one_line(file, spec, complaint) -> None:
    folder = file.parent
    (folder / "broken.py").write_text("1 / 0")
    if isinstance(spec, str):
        spec = spec.format(folder=folder)
    elif "path" in spec:
        spec = {**spec, "path": spec["path"].format(folder=folder)}
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_reward(spec)
    assert "\n" not in str(caught.value)


def test_a_file_named_like_a_module_is_suggested(file, monkeypatch) -> None:
    monkeypatch.chdir(file.parent)
    with pytest.raises(ConfigError, match=r"no module 'scoring'; did you mean 'scoring.py:longest'\?"):
        load_reward("scoring:longest")
