"""Which breasts an epoch shows, how often, and in which batches: data sets with a weight each.

All of it is a pure function of the names of the breasts' data sets, the seed, the epoch and the size of the global
batch: the number of processes is unknown here, so a resume on another one goes through the same global batches.

An example is told by its index, ``row + repetition * n``, for the row of its breast among all n of them. A breast that
is seen again in the same epoch has the next repetition, and with it other random draws. At weight 1 indices are rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mammoclip.errors import ConfigError

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mixture:
    """How data sets share an epoch.

    ``weights`` are the times that a breast of a data set is seen in an epoch, by name; 1 for one that is not named.
    With ``homogeneous`` every global batch is of one data set, else chance mixes them.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    homogeneous: bool = False


ALIKE = Mixture()
"""Every breast once an epoch."""


def check_weights(datasets: Sequence[str], mixture: Mixture) -> None:
    """Check that every weight is of a data set that has breasts; ``datasets`` names that of each breast.

    Raises:
        ConfigError: names the weight and the data sets that there are.
    """
    known = sorted(set(datasets))
    for name in mixture.weights:
        if name not in known:
            raise ConfigError(
                f"pretrain.dataset_weights names {name!r}, of which no breast is trained on; there are: "
                f"{', '.join(known)}"
            )


def draw_epoch(datasets: Sequence[str], mixture: Mixture, seed: int, epoch: int, batch_size: int) -> Indices:
    """Return the indices of the examples of an epoch, batches x batch_size; every epoch has equally many.

    What does not fill a batch is left out: of all examples, or in homogeneous batches of each data set. It is chosen by
    chance and so another one in every epoch.

    Args:
        datasets: name of the data set of each breast.
        mixture: the weights, and what a batch is of.
        seed: seed of the run.
        epoch: number of the epoch, from 0.
        batch_size: examples in a global batch.

    Raises:
        ConfigError: a data set is to have batches of its own and does not fill one.
    """
    rng = np.random.default_rng([seed, 2, epoch])
    names, members = np.unique(np.array(datasets, np.str_), return_inverse=True)
    shares = {}
    for number, name in enumerate(names.tolist()):
        rows = np.flatnonzero(members == number)
        # Rounded once, and not epoch by epoch, so that the length of a run is known before it starts.
        size = max(1, round(mixture.weights.get(name, 1.0) * len(rows)))
        whole, rest = divmod(size, len(rows))
        often = [rows + repetition * len(datasets) for repetition in range(whole)]
        shares[name] = np.concatenate([*often, _deal(rows, rest, [seed, 6, number], epoch) + whole * len(datasets)])
    if not mixture.homogeneous:
        return _cut(rng.permutation(np.sort(np.concatenate([*shares.values()]))), batch_size)
    for name, share in shares.items():
        if len(share) < batch_size:
            raise ConfigError(
                f"pretrain.batches: homogeneous needs {batch_size} examples of every data set (global_batch_size), and "
                f"an epoch has {len(share)} of {name!r}; give it a larger weight, lower global_batch_size, or mix them"
            )
    batches = [_cut(rng.permutation(share), batch_size) for share in shares.values()]
    return rng.permutation(np.concatenate(batches))


def _deal(rows: Indices, number: int, seed: Sequence[int], epoch: int) -> Indices:
    """Return ``number`` of the rows (fewer than all) for an epoch, as cards are dealt from a shuffled pack.

    Every epoch takes from the pack where the last one stopped, so after each pack all rows were seen equally often.
    A new pack has at its end what the same epoch took from the old one, so no epoch sees a row twice.
    """
    pack = dealt = rows[:0]
    for earlier in range(epoch + 1):
        dealt, pack = pack[:number], pack[number:]
        if missing := number - len(dealt):
            shuffled = np.random.default_rng([*seed, earlier]).permutation(rows)
            again = np.isin(shuffled, dealt)
            pack = np.concatenate([shuffled[~again], shuffled[again]])
            dealt, pack = np.concatenate([dealt, pack[:missing]]), pack[missing:]
    return dealt


def _cut(indices: Indices, batch_size: int) -> Indices:
    whole = len(indices) // batch_size
    return indices[: whole * batch_size].reshape(whole, batch_size)
