"""The examples for agents: every file is a configuration, and its environment can be made and stepped."""

from pathlib import Path

import numpy as np
import pytest

from tokenq.config.control import ControlConfig
from tokenq.config.parse import from_file

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "control").glob("*.yaml"))
NEEDS = {"LunarLander-v3": "Box2D", "HalfCheetah-v5": "mujoco"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_configuration_of_an_environment(example: Path) -> None:
    config = from_file(ControlConfig, example)
    if module := NEEDS.get(config.environment.id):
        pytest.importorskip(module, reason=f"{config.environment.id} needs the extra {module.lower()}")
    environments = config.environment.make(2, 0)
    spaces = environments.spaces
    network = config.network.build(spaces)
    assert (network.parts is None) == (len(spaces.heads) == 1)
    steps = environments.step(np.array([0, spaces.actions - 1]))
    assert steps.after.shape == (2, *spaces.shape) and np.isfinite(steps.rewards).all()
    environments.close()


def test_a_cheetah_has_six_parts_of_an_action() -> None:
    pytest.importorskip("mujoco", reason="HalfCheetah-v5 needs the extra mujoco")
    environments = from_file(ControlConfig, EXAMPLES[0].parent / "halfcheetah.yaml").environment.make(1, 0)
    assert environments.spaces.heads == (2,) * 6
    # Code 5 is 000101 in binary: parts 3 and 5 at their upper bound. The reward is forward speed less 0.1·|u|² = 0.6.
    assert environments.choices.of(np.array([5])).tolist() == [[-1, -1, -1, 1, -1, 1]]
    _, _, _, _, info = environments.vector.step(environments.choices.of(np.array([5])))
    assert info["reward_ctrl"][0] == pytest.approx(-0.6)
