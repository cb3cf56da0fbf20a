"""Noisy layers: what is drawn, how much, and when not."""

import pytest
import torch

from tokenq.errors import ConfigError
from tokenq.nets.control import Mlp
from tokenq.nets.noisy import NoisyLinear, without_noise
from tokenq.types import Spaces


def test_in_eval_mode_it_is_a_linear_layer() -> None:
    layer = NoisyLinear(3, 2, 0.5).eval()
    x = torch.randn(4, 3)
    state = torch.get_rng_state()
    assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    assert torch.equal(torch.get_rng_state(), state)


def test_initial_weights_are_those_of_the_source() -> None:
    """μ uniform within ±1/√inputs, σ = σ0/√inputs (Fortunato et al. 2018, section 3.2)."""
    torch.manual_seed(0)
    layer = NoisyLinear(16, 500, 0.5)
    assert (layer.weight_sigma == 0.125).all() and (layer.bias_sigma == 0.125).all()
    for mean in (layer.weight, layer.bias):
        assert mean.abs().max() <= 0.25 and mean.std().item() == pytest.approx(0.25 / 3**0.5, rel=0.1)


def test_noise_is_that_of_a_drawn_weight_matrix() -> None:
    """The two products are μx + b + (σ ∘ f(ε_out)f(ε_in)ᵀ)x + σ_b ∘ f(ε_out), one draw for each row."""
    layer = NoisyLinear(3, 2, 0.5)
    with torch.no_grad():
        layer.weight_sigma.uniform_(), layer.bias_sigma.uniform_()
    x = torch.randn(4, 3)
    torch.manual_seed(7)
    ours = layer(x)
    torch.manual_seed(7)
    into, out = (e.sign() * e.abs().sqrt() for e in (torch.randn(4, 3), torch.randn(4, 2)))
    for row in range(4):
        weight = layer.weight + layer.weight_sigma * torch.outer(out[row], into[row])
        bias = layer.bias + layer.bias_sigma * out[row]
        assert torch.allclose(ours[row], weight @ x[row] + bias, atol=1e-6)


def test_noise_has_mean_zero_and_the_variance_of_the_product() -> None:
    """E f(ε)² = E|ε| = √(2/π): the variance of σ·(f_in·x + 1)·f_out for x = 2 is σ²·√(2/π)·(4·√(2/π) + 1)."""
    torch.manual_seed(0)
    layer = NoisyLinear(1, 1, 0.5)
    with torch.no_grad():
        drawn = layer(torch.full((200_000, 1), 2.0)) - (2 * layer.weight + layer.bias)
    root = (2 / torch.pi) ** 0.5
    assert drawn.mean().item() == pytest.approx(0.0, abs=0.01)
    assert drawn.var().item() == pytest.approx(0.25 * root * (4 * root + 1), rel=0.02)


def test_gradients_reach_the_size_of_the_noise() -> None:
    layer = NoisyLinear(3, 2, 0.5)
    layer(torch.randn(4, 3)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


def test_every_observation_has_a_draw_of_its_own() -> None:
    network = Mlp(1, 16, noisy=0.5).build(Spaces((3,), None, (2,)))
    same = torch.ones(5, 3)
    drawn = network.values(same)
    assert len(drawn.unique(dim=0)) == 5 and not torch.equal(network.values(same), drawn)


def test_the_mode_comes_back() -> None:
    network = Mlp(1, 16, noisy=0.5).build(Spaces((3,), None, (2,)))
    with without_noise(network):
        quiet = network.values(torch.ones(5, 3))
    assert len(quiet.unique(dim=0)) == 1
    assert all(module.training for module in network.modules())
    network.eval()
    with pytest.raises(ZeroDivisionError), without_noise(network):
        raise ZeroDivisionError
    assert not any(module.training for module in network.modules())


def test_all_layers_are_noisy() -> None:
    network = Mlp(2, 8, dueling=True, noisy=0.3).build(Spaces((3,), None, (2,)))
    assert not any(isinstance(module, torch.nn.Linear) for module in network.modules())
    assert sum(isinstance(module, NoisyLinear) for module in network.modules()) == 4
    with pytest.raises(ConfigError, match=r"noisy: got 0\.0"):
        Mlp(noisy=0.0)
