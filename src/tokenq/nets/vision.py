"""Networks of agents that see frames.

Letters: M observations, k frames that are seen together, H by W pixels.
"""

from dataclasses import dataclass

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from tokenq.errors import ConfigError
from tokenq.nets.control import ControlQ
from tokenq.nets.readouts import Spread, readout
from tokenq.types import Spaces

LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Channels, size and stride of each convolution."""


@dataclass(frozen=True)
class NatureCnn:
    """Three convolutions and a hidden layer over stacked frames (Mnih et al. 2015, Nature 518, Methods)."""

    width: int = 512
    """Units of the hidden layer, >= 1."""
    dueling: bool = False
    """Q = V + A − mean A from two output layers (Wang et al. 2016, arXiv 1511.06581, eq. 9)."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"width: got {self.width}, expected an integer >= 1")

    def build(self, spaces: Spaces, spread: Spread | None = None) -> ControlQ:
        """A network with fresh weights for these frames and actions; without `spread` it answers Q itself."""
        if len(spaces.shape) != 3 or min(spaces.shape[1:]) < 36:
            raise ConfigError(
                f"network: got observations of shape {list(spaces.shape)}, expected frames [k, height, width] of at "
                "least 36 by 36 pixels; choose mlp"
            )
        channels, height, width = spaces.shape
        layers: list[nn.Module] = [Pixels()]
        for (out, size, stride), before in zip(LAYERS, (channels, *(layer[0] for layer in LAYERS)), strict=False):
            layers += [nn.Conv2d(before, out, size, stride), nn.ReLU()]
            height, width = ((side - size) // stride + 1 for side in (height, width))
        layers += [nn.Flatten(), nn.Linear(LAYERS[-1][0] * height * width, self.width), nn.ReLU()]
        return ControlQ(nn.Sequential(*layers, *readout(self.width, spaces, spread, self.dueling)), spread)


class Pixels(nn.Module):
    """Brightness from 0 to 255 as numbers from 0 to 1."""

    def forward(self, frames: Shaped[Tensor, "M k H W"]) -> Float[Tensor, "M k H W"]:
        """The same frames, divided by 255."""
        return frames / 255
