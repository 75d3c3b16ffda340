"""torchvision imports, whether or not its compiled extension fits torch, and only when it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runner.contract.torchvision_compat import import_torchvision

REPO = Path(__file__).parents[2]
LOADABLE = Path(torch.__file__).parent / "lib" / "libtorch_global_deps.so"
FAKE = """
import torch
defined = hasattr(torch.ops.torchvision, "nms")
"""


def run(code: str, *paths: Path) -> str:
    """What a fresh interpreter prints."""
    start = f"import sys; sys.path[:0] = {[str(p) for p in (*paths, REPO)]!r}\n"
    done = subprocess.run([sys.executable, "-c", start + code], text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_datasets_transforms_and_models_work_and_come_late():
    out = run(
        "import warnings; warnings.simplefilter('error')\n"
        "import workloads.vision, workloads.embedded\n"
        "print([m for m in ('torchvision', 'sklearn', 'pandas') if m in sys.modules])\n"
        "from runner.contract.torchvision_compat import import_torchvision\n"
        "tv = import_torchvision(); assert import_torchvision() is tv\n"
        "import torch, torchvision.transforms.v2 as v2, torchvision.models\n"
        "image = torch.zeros(3, 8, 8, dtype=torch.uint8)\n"
        "print(v2.functional.horizontal_flip(image).shape, torchvision.models.resnet18().fc.out_features)\n"
    )
    assert out.splitlines() == ["[]", "torch.Size([3, 8, 8]) 1000"]


CASES = [
    (True, None, False),  # a torchvision built for this torch: nothing to mend
    (False, None, True),
    (False, "12.8", False),  # a mismatch on a CUDA torch is an error that torchvision reports
]


@pytest.mark.skipif(not LOADABLE.exists(), reason="needs a shared library of torch's to stand in for one")
def test_operators_are_defined_only_where_the_extension_is_missing(tmp_path: Path):
    for extension, name in ((True, "fitting"), (False, "unfitting")):
        package = tmp_path / name / "torchvision"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(FAKE)
        if extension:
            (package / "_C.so").symlink_to(LOADABLE)
    out = run(
        "import os, torch\n"
        f"for extension, cuda, _ in {CASES!r}:\n"
        "    if os.fork() == 0:\n"  # each case in a process of its own, torch imported once
        f"        sys.path.insert(0, {str(tmp_path)!r} + ('/fitting' if extension else '/unfitting'))\n"
        "        torch.version.cuda = cuda\n"
        "        from runner.contract.torchvision_compat import import_torchvision\n"
        "        print((extension, cuda, import_torchvision().defined), flush=True)\n"
        "        os._exit(0)\n"
        "    assert os.wait()[1] == 0\n"
    )
    assert out.splitlines() == [str(case) for case in CASES]


def test_a_missing_torchvision_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ImportError, match="torchvision is not installed"):
        import_torchvision()
