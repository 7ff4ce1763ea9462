import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import safetensors._safetensors_rust
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.models.torchvision_ops import ensure_torchvision, greedy_nms

REPOSITORY = Path(__file__).parents[3]


def run_python(code: str, *paths: Path) -> str:
    """Run ``code`` in a fresh interpreter; only there is torchvision not yet imported."""
    lines = ["import sys", f"sys.path[:0] = {[str(path) for path in (*paths, REPOSITORY)]!r}", textwrap.dedent(code)]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def nms_by_loops(boxes: list[list[float]], scores: list[float], threshold: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


# Corners on a grid of integers: every IoU is a ratio of small integers, far from the thresholds below or exactly 1/2.
box = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 8)] * 2).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(box, st.integers(0, 5)), max_size=25), st.sampled_from([0.0, 0.31, 0.5, 0.77, 1.0]))
def test_nms_keeps_what_the_definition_keeps(scored_boxes, threshold):
    boxes = torch.tensor([b for b, _ in scored_boxes], dtype=torch.float64).reshape(-1, 4)
    scores = torch.tensor([s for _, s in scored_boxes], dtype=torch.float64)
    kept = greedy_nms(boxes, scores, threshold)
    assert kept.dtype == torch.int64
    assert kept.tolist() == nms_by_loops(boxes.tolist(), scores.tolist(), threshold)


def test_nms_keeps_boxes_without_area():
    assert greedy_nms(torch.zeros(2, 4), torch.tensor([0.1, 0.9]), 0.5).tolist() == [1, 0]


def test_repeating_it_changes_nothing():
    before = torch.ops.torchvision.nms
    ensure_torchvision()
    assert torch.ops.torchvision.nms is before


def test_torchvision_operators_timm_and_bert_work_after_importing_the_models():
    printed = run_python("""
        import mammoclip.models
        import timm, torch, torchvision
        from transformers import BertConfig, BertModel
        torchvision.extension._assert_has_ops()
        boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
        scores = torch.tensor([0.5, 0.9, 0.1])
        print(torchvision.ops.nms(boxes, scores, 0.5).tolist())
        print(torchvision.ops.batched_nms(boxes, scores, torch.tensor([0, 1, 1]), 0.5).tolist())
        quantised = [torch.quantize_per_tensor(x, 0.1, 0, torch.quint8) for x in (boxes[:2], scores[:2])]
        print(torchvision.ops.nms(*quantised, 0.5).tolist())
        timm.create_model("resnet18")
        BertModel(BertConfig(vocab_size=9, hidden_size=12, num_hidden_layers=1))
    """)
    assert printed.splitlines() == ["[1, 2]", "[1, 0, 2]", "[1]"]


def test_nothing_is_declared_where_the_compiled_operators_load(tmp_path):
    """A stand-in torchvision whose extension is a library that loads into any torch."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").touch()
    library = Path(safetensors._safetensors_rust.__file__)
    (package / f"_C{library.name.removeprefix('_safetensors_rust')}").symlink_to(library)
    printed = run_python(
        """
        import importlib.util, torch, types
        location = sys.path[1] + "/mammoclip/models/torchvision_ops.py"
        spec = importlib.util.spec_from_file_location("torchvision_ops", location)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.ensure_torchvision()
        print(hasattr(torch.ops.torchvision, "nms"), "torchvision" in sys.modules)
        """,
        tmp_path,
    )
    assert printed.split() == ["False", "False"]


@pytest.mark.parametrize("extension", ["_C.missing", "_C.abi3.so"], ids=["absent", "broken"])
def test_operators_do_not_load_from_an_absent_or_broken_extension(tmp_path, monkeypatch, extension):
    from mammoclip.models import torchvision_ops

    (tmp_path / "__init__.py").touch()
    (tmp_path / extension).write_bytes(b"no library")
    spec = torchvision_ops.importlib.util.spec_from_file_location("torchvision", tmp_path / "__init__.py")
    monkeypatch.setattr(torchvision_ops.importlib.util, "find_spec", lambda name: spec)
    assert not torchvision_ops._compiled_operators_load()
