import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tokenq.checkpoint import capture, flatten, load_tensors, restore, save_tensors, unflatten
from tokenq.errors import CheckpointError


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
tensors = st.lists(st.floats(width=32, allow_nan=False), max_size=3).map(torch.tensor)
states = st.recursive(
    leaves | tensors,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text("abc", min_size=1), inner)
        | st.dictionaries(st.integers(), inner)
    ),
    max_leaves=10,
)


@given(states)
def test_flatten_and_unflatten_are_inverse(state: Any) -> None:
    assert same(unflatten(*flatten(state)), state)


def trained(steps: int) -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.9, 0.95))
    advance(model, optimiser, steps)
    return model, optimiser


def advance(model: nn.Linear, optimiser: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        optimiser.zero_grad()
        model(torch.full((1, 3), step + 0.3)).square().sum().backward()
        optimiser.step()


def test_adamw_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model, optimiser = trained(3)
    save_tensors(tmp_path / "state.safetensors", {"model": model.state_dict(), "optimiser": optimiser.state_dict()})
    advance(model, optimiser, 4)

    other, resumed = trained(1)
    state = load_tensors(tmp_path / "state.safetensors")
    other.load_state_dict(state["model"])
    resumed.load_state_dict(state["optimiser"])
    advance(other, resumed, 4)
    assert torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)
    assert same(optimiser.state_dict(), resumed.state_dict())


def test_tied_and_sliced_tensors_are_kept_once_and_small(tmp_path: Path) -> None:
    weight = torch.arange(1000.0)
    tied = {"input": weight, "output": weight.detach(), "slice": weight[:2], "transposed": weight.view(2, 500).T}
    save_tensors(tmp_path / "a", tied)
    loaded = load_tensors(tmp_path / "a")
    assert same(loaded, tied) and loaded["input"].data_ptr() == loaded["output"].data_ptr()
    assert (tmp_path / "a").stat().st_size < 2 * 4000 + 2 * 4 + 1000


def test_the_file_is_the_same_each_time(tmp_path: Path) -> None:
    state = {"b": torch.ones(3), "a": torch.zeros(2, dtype=torch.bfloat16), "n": 1, "list": [torch.eye(2)]}
    for name in "xy":
        save_tensors(tmp_path / name, state)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_what_needs_pickle_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^a/0: cannot save a set without pickle$"):
        flatten({"a": [{1}]})
    with pytest.raises(TypeError, match="must be str or int"):
        flatten({(1, 2): 3})
    with pytest.raises(TypeError, match="two tensors"):
        flatten({"a/b": torch.ones(1), "a": {"b": torch.zeros(1)}})


def test_a_foreign_or_damaged_file_is_one_line(tmp_path: Path) -> None:
    foreign, damaged = tmp_path / "foreign", tmp_path / "damaged"
    shutil.copy(__file__, foreign)
    save_tensors(damaged, {"a": torch.ones(9)})
    damaged.write_bytes(damaged.read_bytes()[:-1])
    for path in (foreign, damaged, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match=f"{path.name}: no readable state") as caught:
            load_tensors(path)
        assert "\n" not in str(caught.value)


def draw(generator: np.random.Generator) -> list[float]:
    return [torch.rand(()).item(), random.random(), random.gauss(), float(np.random.rand()), generator.random()]


def test_every_stream_goes_on_where_it_was(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    draw(generator)
    save_tensors(tmp_path / "rng", capture({"replay": generator}))
    expected = draw(generator)
    other = np.random.default_rng(6)
    restore(load_tensors(tmp_path / "rng"), {"replay": other})
    assert draw(other) == expected


def test_streams_of_another_run_are_refused() -> None:
    state = capture({"replay": np.random.default_rng(0)})
    with pytest.raises(CheckpointError, match=r"\['replay'\], expected \['rollout'\]"):
        restore(state, {"rollout": np.random.default_rng(0)})


def test_a_generator_with_array_state_is_restored() -> None:
    generator = np.random.Generator(np.random.MT19937(1))
    state = capture({"a": generator})
    expected = generator.random(3)
    restore(state, {"a": generator})
    assert (generator.random(3) == expected).all()
