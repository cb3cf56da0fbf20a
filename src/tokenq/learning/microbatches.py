"""A batch in parts, for updates whose gradient comes from several forward passes."""

from collections.abc import Sequence
from dataclasses import replace

from tokenq.types import Batch, Observations, Texts


def split(batch: Batch, parts: int) -> list[Batch]:
    """The batch in so many parts, in order."""
    inputs = _texts(batch.inputs, parts) if isinstance(batch.inputs, Texts) else _observations(batch.inputs, parts)

    def part(i: int) -> Batch:
        return replace(batch.map(lambda tensor: tensor.tensor_split(parts)[i]), inputs=inputs[i])

    return [batch] if parts == 1 else [part(i) for i in range(parts)]


def _texts(texts: Texts, parts: int) -> Sequence[Texts]:
    """An episode may be read from several rows, and its neighbours from others."""
    found = []
    for states, rows in zip(texts.states.tensor_split(parts), texts.rows.tensor_split(parts), strict=True):
        own = slice(int(rows.min()), int(rows.max()) + 1)
        read = (texts.tokens[own], texts.attention[own], states, rows - own.start)
        found.append(Texts(*read, texts.source[own], texts.source_attention[own]))
    return found


def _observations(observations: Observations, parts: int) -> Sequence[Observations]:
    cut = [[None] * parts if part is None else part.tensor_split(parts) for part in vars(observations).values()]
    return [Observations(*part) for part in zip(*cut, strict=True)]
