from __future__ import annotations

import pickle

from mammoclip.errors import RejectedInput


def test_a_rejection_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(RejectedInput("no_breast", "nothing stands out")))
    assert (error.reason, error.detail, str(error)) == (
        "no_breast",
        "nothing stands out",
        "no_breast: nothing stands out",
    )
