from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenq.config.parse import dump, from_file, from_mapping, parse, to_mapping
from tokenq.errors import ConfigError


@dataclass(frozen=True)
class Logits:
    beta: float = 0.1

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ConfigError(f"beta: got {self.beta}, expected a number > 0")


@dataclass(frozen=True)
class Head:
    beta: float = 0.05
    samples: int = 4


@dataclass(frozen=True)
class Soft:
    values: Logits | Head = field(default_factory=Logits)
    lam: float = 0.0


@dataclass(frozen=True)
class DoubleDQN:
    plausible: int = 8


@dataclass(frozen=True)
class Periodic:
    every: int


@dataclass(frozen=True)
class Walks:
    nodes: int = 21


@dataclass(frozen=True)
class Store:
    capacity: int | None = 10
    sampler: Logits | Head = field(default_factory=lambda: Head(samples=7))


@dataclass(frozen=True)
class Train:
    model: str | None = None
    task: Walks | None = None
    rewards: list[str | dict[str, Any]] = field(default_factory=list)
    weights: list[float] | None = None
    learning_rate: float = 3e-4
    schedule: Literal["constant", "linear"] = "constant"
    objective: Soft | DoubleDQN = field(default_factory=Soft)
    exploration: Logits | Head | None = None
    sync: Periodic | None = None
    store: Store = field(default_factory=Store)
    resume: bool = False


@dataclass(frozen=True)
class Say:
    run: str
    prompt: list[str] = field(default_factory=list)


def told(argv: str | list[str], text: str | None = None, folder: Path | None = None) -> Train:
    words = argv.split() if isinstance(argv, str) else argv
    if text is not None:
        assert folder is not None
        (folder / "config.yaml").write_text(text)
        words = [str(folder / "config.yaml"), *words]
    return parse(words, Train, "tokenq train")


def complaint(argv: str | list[str], text: str | None = None, folder: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        told(argv, text, folder)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{folder}/", "")


def test_nothing_said_gives_the_defaults() -> None:
    assert told("") == Train()


def test_the_command_line_beats_the_file_and_the_file_beats_the_default(tmp_path: Path) -> None:
    text = "learning_rate: 1e-3\nresume: true\nobjective: {values: {beta: 3}}\n"
    config = told("--learning_rate 1 --store.capacity=null", text, tmp_path)
    assert config == Train(learning_rate=1.0, resume=True, objective=Soft(Logits(3.0)), store=Store(None))
    assert isinstance(config.learning_rate, float)


@pytest.mark.parametrize("text", ["3", "true", "a: b", "[x", "", "-1"])
def test_text_stays_text(text: str) -> None:
    assert told(["--model", text]).model == told([f"--model={text}"]).model == text


@pytest.mark.parametrize("argv", ["--resume", "--resume --model x", "--resume true", "--resume=true"])
def test_a_bare_flag_is_true(argv: str) -> None:
    assert told(argv).resume is True


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("--objective double_dqn", DoubleDQN()),
        ("--objective.type double_dqn --objective.plausible 2", DoubleDQN(2)),
        ("--objective.plausible 2 --objective double_dqn", DoubleDQN(2)),
        ("--objective.values head --objective.values.samples 1", Soft(Head(samples=1))),
        ("--objective.values.beta 2", Soft(Logits(2.0))),
    ],
)
def test_a_group_takes_the_class_its_type_names(argv: str, expected: Soft | DoubleDQN) -> None:
    assert told(argv).objective == expected


@pytest.mark.parametrize(
    "text", ["objective: double_dqn", "objective: {type: double_dqn}", "objective:\n  type: double_dqn\n  plausible: 8"]
)
def test_both_ways_to_write_a_type_in_a_file(tmp_path: Path, text: str) -> None:
    assert told("", text, tmp_path).objective == DoubleDQN()


def test_an_optional_group() -> None:
    assert told("--task walks").task == told("--task.nodes 21").task == Walks()
    assert from_mapping(Train, {"task": {}}, "x").task == from_mapping(Train, {"task": "walks"}, "x").task == Walks()
    assert from_mapping(Train, {"task": None}, "x").task is None
    assert told("--exploration null").exploration is None
    assert told("--exploration head").exploration == Head()


def test_the_command_line_may_switch_an_optional_group_off(tmp_path: Path) -> None:
    assert told("--task null", "task: walks", tmp_path).task is None


def test_the_default_of_a_group_is_an_instance_not_its_class() -> None:
    assert told("--store.sampler.beta 1").store.sampler == Head(1.0, 7)
    assert told("--store.sampler.type logits").store.sampler == Logits()
    assert told("--store.sampler.type head").store.sampler == Head(samples=7)


def test_a_list_takes_one_item_per_flag(tmp_path: Path) -> None:
    argv = ["--rewards", "a.py:b", "--rewards", "{path: '6', args: {n: 1}}", "--weights", "1", "--weights", "0.5"]
    config = told(argv)
    assert config.rewards == ["a.py:b", {"path": "6", "args": {"n": 1}}] and config.weights == [1.0, 0.5]
    assert told(["--weights", "null", "--rewards", "[]"], "weights: [1]\nrewards: [a]", tmp_path) == Train()


def test_a_required_field_is_a_positional_argument() -> None:
    assert parse(["runs/a", "--prompt", "[INST]", "--prompt=--x", "--prompt", "null"], Say) == Say(
        "runs/a", ["[INST]", "--x", "null"]
    )
    with pytest.raises(ConfigError, match=r"^run: missing, expected str$"):
        parse([], Say)
    with pytest.raises(ConfigError, match=r"^got 'a b', expected only run and --options$"):
        parse(["a", "b"], Say)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--learning_rate fast", "learning_rate: got 'fast' (str), expected float"),
        ("--store.capacity 1.5", "store.capacity: got '1.5' (str), expected int or null"),
        ("--schedule cosine", "schedule: got 'cosine' (str), expected one of constant, linear"),
        ("--resume 1", "resume: got '1' (str), expected bool"),
        ("--weights 1 --weights x", "weights: got ['1', 'x'] (list), expected a list of float or null"),
        ("--rewards {path:", "rewards: got '{path:' (str), expected a list of str or a mapping"),
        ("--objective sofd", "objective.type: got 'sofd', expected one of soft, double_dqn"),
        ("--objective null", "objective.type: got 'null', expected one of soft, double_dqn"),
        ("--exploration.beta 1", "exploration.type: missing, expected one of logits, head, null"),
        ("--sync periodic", "sync.every: missing, expected int"),
        ("--objective.values.beta -1", "objective.values.beta: got -1.0, expected a number > 0"),
        ("--learning-rate 1", "unknown option '--learning-rate'; did you mean '--learning_rate'?"),
        ("--objective.bta 1", "unknown option '--objective.bta' (the type of objective is soft); did you mean"),
        ("--zzz 1", "unknown option '--zzz'; --help lists all of them"),
        ("--model", "--model: got no value, expected one, as in --model VALUE or --model=VALUE"),
        ("--learning_rate --model x", "--learning_rate: got no value"),
        ("--task", "task.type: got 'true', expected one of walks, null"),
        ("a.yaml b.yaml", "got 'a.yaml b.yaml', expected only CONFIG.yaml and --options"),
        ("absent.yaml", "absent.yaml: No such file or directory; expected a YAML file"),
    ],
)
def test_a_mistake_on_the_command_line(argv: str, message: str) -> None:
    assert complaint(argv).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: fast", "config.yaml: learning_rate: got 'fast' (str), expected float"),
        ("learning_rate: true", "config.yaml: learning_rate: got True (bool), expected float"),
        ("model: 3", "config.yaml: model: got 3 (int), expected str or null"),
        ("rewards: a", "config.yaml: rewards: got 'a' (str), expected a list of str or a mapping"),
        ("store: 3", "config.yaml: store: got 3, expected a mapping of its fields"),
        ("objective: {type: false}", "objective.type: got False, expected one of soft, double_dqn"),
        ("store: {capcity: 3}", "config.yaml: unknown key 'store.capcity'; did you mean 'store.capacity'?"),
        ("objective: {bta: 1}", "config.yaml: unknown key 'objective.bta' (the type of objective is soft); did you"),
        ("task: {type: null, nodes: 3}", "config.yaml: unknown key 'task.nodes' (the type of task is null)"),
        ("3: 4", "config.yaml: unknown key '3'"),
        ("- a", "config.yaml: got a list, expected lines of the form key: value"),
        ("a: [", "config.yaml: not valid YAML: while parsing"),
        ("a: 2024-13-45", "config.yaml: not valid YAML"),
        ("model: a\nstore:\n  capacity: 1\n  capacity: 2", "config.yaml line 4: key 'capacity' stands there twice"),
    ],
)
def test_a_mistake_in_a_file(tmp_path: Path, text: str, message: str) -> None:
    assert complaint("", text, tmp_path).startswith(message)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"model: \xff")
    with pytest.raises(ConfigError, match=r"config\.yaml: not UTF-8 text at byte 7"):
        parse([str(tmp_path / "config.yaml")], Train)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert told("", "# nothing\n", tmp_path) == Train()


def test_fields_of_the_type_that_was_switched_away_are_refused(tmp_path: Path) -> None:
    message = complaint("--objective double_dqn", "objective: {lam: 0.5}", tmp_path)
    assert message.startswith("config.yaml: unknown key 'objective.lam' (the type of objective is double_dqn)")
    assert message.endswith("to put another in its place as a whole, write --objective '{type: double_dqn}'")


def test_a_mapping_on_the_command_line_replaces_a_whole_part(tmp_path: Path) -> None:
    def replaced(text: str) -> list[str]:
        return ["--objective", text]

    file = "objective: {type: soft, lam: 0.5, values: {type: head, samples: 1}}"
    assert told(replaced("{type: double_dqn}"), file, tmp_path).objective == DoubleDQN()
    assert told(replaced("{type: soft, lam: 0.25}"), file, tmp_path).objective == Soft(lam=0.25)
    assert told([*replaced("{type: soft}"), "--objective.lam", "1"], file, tmp_path).objective == Soft(lam=1.0)
    assert complaint(replaced("{type:"), file, tmp_path).startswith("objective: got '{type:', expected a mapping")
    unknown = complaint(replaced("{type: soft, lm: 1}"), file, tmp_path)
    assert unknown.startswith("command line: unknown key 'objective.lm'") and "did you mean 'objective.lam'?" in unknown


floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])).filter(lambda text: text != "null")
logits = st.builds(Logits, floats.filter(lambda beta: beta > 0))
heads = st.builds(Head, floats, st.integers())
trains = st.builds(
    Train,
    model=st.none() | texts,
    task=st.none() | st.builds(Walks, st.integers()),
    rewards=st.lists(texts | st.fixed_dictionaries({"path": texts, "args": st.dictionaries(texts, floats)})),
    weights=st.none() | st.lists(floats),
    learning_rate=floats,
    schedule=st.sampled_from(["constant", "linear"]),
    objective=st.builds(Soft, logits | heads, floats) | st.builds(DoubleDQN, st.integers()),
    exploration=st.none() | logits | heads,
    sync=st.none() | st.builds(Periodic, st.integers()),
    store=st.builds(Store, st.none() | st.integers(), logits | heads),
    resume=st.booleans(),
)


@settings(max_examples=25, deadline=None)
@given(trains)
@example(Train(learning_rate=1e-05))
def test_a_resolved_configuration_reads_back_as_itself(tmp_path_factory: pytest.TempPathFactory, config: Train) -> None:
    path = tmp_path_factory.getbasetemp() / "resolved.yaml"
    path.write_text(dump(config), encoding="utf-8")
    assert from_file(Train, path) == config == from_mapping(Train, to_mapping(config), "x")


@given(st.sampled_from(["--model", "--learning_rate", "--store.capacity", "--rewards", "--task"]), st.text())
def test_no_text_on_the_command_line_escapes_the_one_line_error(option: str, text: str) -> None:
    try:
        config = told([f"{option}={text}"])
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert option != "--model" or config.model in (text, None)


def test_print_config_prints_what_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        told("--print_config --objective double_dqn --learning_rate 1e-5")
    assert ended.value.code == 0
    assert told("", capsys.readouterr().out, tmp_path) == replace(Train(), objective=DoubleDQN(), learning_rate=1e-5)
