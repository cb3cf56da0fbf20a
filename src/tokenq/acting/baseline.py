"""What a completion is compared with: the other completions of its prompt."""

import numpy as np
from jaxtyping import Float


def leave_one_out(totals: Float[np.ndarray, "M"], generations: int) -> Float[np.ndarray, "M"]:
    """Each total less the mean of the other rated ones of its group; groups are `generations` totals in a row.

    NaN stays NaN, and so does a total that no other can be compared with (Kool et al. 2019, "Buy 4 REINFORCE samples,
    get a baseline for free!"). Raises ValueError if the groups do not come out even.
    """
    groups = totals.reshape(-1, generations)
    others = (~np.isnan(groups)).sum(1, keepdims=True) - 1
    rest = np.nansum(groups, axis=1, keepdims=True) - groups
    compared: np.ndarray = groups - np.divide(rest, others, out=np.full_like(groups, np.nan), where=others > 0)
    return compared.reshape(-1)
