"""The example of docs/adding-a-dataset.md works as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest

from mammoclip.data.index import list_dataset
from mammoclip.data.splits import SplitFractions
from mammoclip.data.tabulate import tabulate_dataset

DOCUMENT = Path(__file__).parents[3] / "docs" / "adding-a-dataset.md"
TABLE = """person,exam,number,side,projection,birads,mass
p1,e1,101,left,CC,4,yes
p1,e1,102,left,MLO,4,no
p2,e2,103,right,cc,x,
"""


@pytest.fixture
def adapter() -> Any:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    module: dict[str, Any] = {}
    exec(code, module)  # the code of our own document
    return module["StMary"]()


def test_the_example_makes_tables(adapter: Any, tmp_path: Path) -> None:
    (tmp_path / "exams.csv").write_text(TABLE)
    index = list_dataset(adapter, tmp_path, "st-mary").index
    done = tabulate_dataset(
        index, None, adapter.annotations(tmp_path), "st-mary", "strict", SplitFractions(0.1, 0.2, 0)
    )
    labels = done.tables["labels"].select("image_id", "patient_id", "laterality", "view", "mass", "birads")
    assert labels.rows() == [
        ("101", "p1", "L", "CC", 1, 4),
        ("102", "p1", "L", "MLO", 0, 4),
        ("103", "p2", "R", "CC", None, None),
    ]
    assert done.rejects.select("path", "reason").rows() == [("exams.csv row 4", "wrong_type")]
