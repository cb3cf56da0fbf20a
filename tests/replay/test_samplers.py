import numpy as np
import pytest

from tokenq.errors import ConfigError
from tokenq.replay.buffer import Sampler
from tokenq.replay.samplers import Prioritised, Recent, Uniform

AGE = np.array([2.0, 1.0, 0.0])
PRIORITY = np.array([0.0, 1.0, 3.0])


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (Uniform(), [1 / 3, 1 / 3, 1 / 3]),
        (Recent(half_life=1.0), [1 / 7, 2 / 7, 4 / 7]),
        (Prioritised(alpha=1.0, epsilon=1.0), [1 / 7, 2 / 7, 4 / 7]),
        (Prioritised(alpha=0.5, epsilon=1.0), np.array([1, 2**0.5, 2]) / (3 + 2**0.5)),
        (Prioritised(alpha=0.0), [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_probabilities_by_hand(sampler: Sampler, expected: list[float]) -> None:
    np.testing.assert_allclose(sampler.probabilities(AGE, PRIORITY), expected)


def test_beta_is_annealed_and_then_stays() -> None:
    sampler = Prioritised(beta=0.4, beta_end=1.0, anneal=100)
    assert [sampler.correction(update) for update in (0, 50, 100, 1000)] == pytest.approx([0.4, 0.7, 1.0, 1.0])


def test_very_old_episodes_stay_possible() -> None:
    assert (Recent(half_life=0.01).probabilities(np.arange(5000.0), np.zeros(5000)) > 0).all()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Recent(half_life=0.0), "half_life"),
        (lambda: Recent(half_life=float("nan")), "half_life"),
        (lambda: Prioritised(alpha=-0.1), "alpha"),
        (lambda: Prioritised(beta=1.1), "beta"),
        (lambda: Prioritised(beta_end=-1.0), "beta_end"),
        (lambda: Prioritised(anneal=0), "anneal"),
        (lambda: Prioritised(epsilon=0.0), "epsilon"),
    ],
)
def test_fields_out_of_range_are_named(make, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: got .*, expected "):
        make()
