"""From a text to windows: nothing lost, nothing leaked, and one clear line where a file is no good."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.base.errors import UserError, one_line
from runner.compose.config import compose
from runner.contract.instantiate import build_part
from workloads import text
from workloads.text import LanguageModelling, Source, WikiText2, windows

CPU = torch.device("cpu")
TEXT = "It was a dark and stormy night; the rain fell in torrents. " * 20
SMALL = {"context": 8, "width": 8, "layers": 1, "heads": 2, "batch_size": 4, "eval_batch_size": 5}


def make(name: str = "tiny_lm", **changes: Any) -> LanguageModelling:
    """A shipped workload, small."""
    config = compose([f"workload={name}"])["workload"] | SMALL | {"download": False} | changes
    return build_part("workload", config, prefix="")


def prepared(content: str | bytes, tmp_path: Path, **changes: Any) -> LanguageModelling:
    path = tmp_path / "own.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    workload = make(text=str(path), **changes)
    workload.prepare(tmp_path)
    return workload


def splits(workload: LanguageModelling) -> dict[str, tuple[Tensor, Tensor]]:
    data = workload._data
    assert data is not None
    return {name: (getattr(data, name).x, getattr(data, name).y) for name in ("train", "validation", "test")}


# -- windows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "context"), [(9, 8), (16, 8), (17, 8), (100, 7), (2, 1), (50, 48)])
def test_windows_are_disjoint_and_cover_the_text(tokens: int, context: int):
    rows = windows(torch.arange(tokens), context)
    assert rows.x.flatten().tolist() == list(range(rows.x.numel()))
    assert rows.y.flatten().tolist() == list(range(1, rows.x.numel() + 1))
    assert 0 <= tokens - 1 - rows.x.numel() < context  # a remainder shorter than a window
    assert rows.x.shape == rows.y.shape == (len(rows), context)
    rows.y.zero_()  # a part may write to its targets
    assert rows.x.flatten().tolist() == list(range(rows.x.numel()))


@pytest.mark.parametrize("level", ["char", "byte"])
def test_splits_lie_where_they_should(tmp_path: Path, level: str):
    pattern = bytes(range(33, 127))
    content = bytes(pattern[(i * i + i // 94) % 94] for i in range(1000))
    found = splits(prepared(content, tmp_path, level=level))
    order = sorted(set(content[:900])) if level == "char" else list(range(256))
    for name, start, stop in (("train", 0, 900), ("validation", 900, 950), ("test", 950, 1000)):
        x, y = found[name]
        n = (stop - start - 1) // 8
        ids = [order.index(b) for b in content[start:stop]]
        assert x.tolist() == [ids[8 * i : 8 * i + 8] for i in range(n)]
        assert y.tolist() == [ids[8 * i + 1 : 8 * i + 9] for i in range(n)]
        assert x.dtype == y.dtype == torch.int64


def test_other_scored_text_leaves_training_as_it_is(tmp_path: Path):
    content = (TEXT * 2)[:2000]
    one = prepared(content, tmp_path)
    other = prepared(content[:1800] + "ß→" * 100, tmp_path)
    assert one.checksums()["train"] == other.checksums()["train"]
    assert one.checksums()["validation"] != other.checksums()["validation"]
    assert one.num_classes == other.num_classes
    # … and the last character before the border is a target, or left over, but the first behind it never is.
    third = prepared(content[:1799] + "ß" + content[1800:], tmp_path)
    assert third.num_classes == one.num_classes + 1


def test_unknown_characters_are_one_token(tmp_path: Path):
    workload = prepared("abc" * 300 + "aé" * 25 + "b→" * 25, tmp_path)  # 900 + 50 + 50
    assert workload.num_classes == 4
    found = splits(workload)
    assert found["train"][0].unique().tolist() == [0, 1, 2]
    assert found["validation"][0][0].tolist() == [0, 3] * 4
    assert found["test"][0][0].tolist() == [1, 3] * 4
    assert make(text="x").num_classes == 10  # the class itself is left alone


def test_bytes_need_no_utf8(tmp_path: Path):
    content = bytes(range(256)) * 4
    workload = prepared(content, tmp_path, level="byte")
    assert workload.num_classes == 256
    assert splits(workload)["train"][0].flatten().tolist() == list(content[: 8 * (920 // 8)])


# -- the task and its evaluation ---------------------------------------------------------------------


def test_characters_are_those_of_text_mode_and_bytes_all_of_the_file(tmp_path: Path):
    lines = TEXT.replace(". ", ".\n")
    windows = ("\ufeff" + lines.replace("\n", "\r\n")).encode()
    plain, other = prepared(lines, tmp_path), prepared(windows, tmp_path)
    assert plain.num_classes == other.num_classes
    assert all(
        torch.equal(a[0], b[0]) for a, b in zip(splits(plain).values(), splits(other).values(), strict=True)
    )
    raw = prepared(windows, tmp_path, level="byte")
    assert splits(raw)["train"][0][0, :3].tolist() == [0xEF, 0xBB, 0xBF]


@pytest.fixture
def built(tmp_path: Path):
    torch.manual_seed(0)
    return prepared(TEXT, tmp_path).build(1, CPU)


def test_a_batch_is_windows_with_their_ids(tmp_path: Path):
    workload = prepared(TEXT, tmp_path)
    task, _ = workload.build(1, CPU)
    batch, (x, y) = task.data.next(), splits(workload)["train"]
    assert batch.index is not None and len(batch) == 4
    assert torch.equal(batch.x, x[batch.index]) and torch.equal(batch.y, y[batch.index])
    info = task.info
    assert (info.task, info.model, info.metric, info.minimize) == ("lm", "transformer", "loss", True)
    assert (info.input_range, info.input_shape) == (None, (8,))
    assert info.num_train == len(x) and info.num_classes == workload.num_classes


def test_every_parameter_has_its_role(built):
    task, _ = built
    kinds = task.info.param_kind
    assert set(kinds) == {name for name, _ in task.model.named_parameters()}
    assert {name for name, kind in kinds.items() if kind == "embedding"} == {
        "tokens.weight",
        "positions.weight",
    }
    assert kinds["blocks.0.mlp.out.weight"] == kinds["blocks.0.attention.qkv.weight"] == "hidden"
    assert kinds["norm.weight"] == "norm" and kinds["norm.bias"] == kinds["blocks.0.mlp.out.bias"] == "bias"


def test_losses_are_means_over_a_rows_tokens(built):
    task, evaluate = built
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    batch = task.data.next()
    rows = [reference(task.model, x, y) for x, y in zip(batch.x, batch.y, strict=True)]
    losses = [sum(nats) / len(nats) for nats, _ in rows]
    assert task.losses(batch).tolist() == pytest.approx(losses, rel=1e-5)
    split = evaluate.splits["validation"]
    rows = [reference(task.model, x, y) for x, y in zip(split.x, split.y, strict=True)]
    metrics = evaluate(task.model, "validation")
    assert metrics["loss"] == pytest.approx(sum(sum(n) for n, _ in rows) / split.y.numel(), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(sum(right for _, right in rows) / split.y.numel())


def reference(model: torch.nn.Module, x: Tensor, y: Tensor) -> tuple[list[float], int]:
    """Nats for each token of a row, in plain Python, and how many are right."""
    with torch.no_grad():
        logits = model(x.unsqueeze(0))[0].tolist()
    nats = [
        math.log(sum(map(math.exp, row))) - row[target]
        for row, target in zip(logits, y.tolist(), strict=True)
    ]
    return nats, sum(row.index(max(row)) == t for row, t in zip(logits, y.tolist(), strict=True))


def test_nothing_that_a_task_holds_leads_to_the_scored_text(built):
    from runner.check.reach import extent, reachable

    task, evaluate = built
    scored = [extent(t) for split in evaluate.splits.values() for t in (split.x, split.y)]
    held = [item for _, item in reachable({"task": task}) if isinstance(item, Tensor)]
    assert len(held) > 10
    for start, end in map(extent, held):
        assert not any(start < high and low < end for low, high in scored)
        storage = [t.untyped_storage().data_ptr() for s in evaluate.splits.values() for t in (s.x, s.y)]
    assert not {t.untyped_storage().data_ptr() for t in held} & set(storage)


# -- files that are no good --------------------------------------------------------------------------


def missing(folder: Path) -> str:
    return "nowhere.txt"


def a_folder(folder: Path) -> str:
    (folder / "own.txt").mkdir()
    return "own.txt"


def not_in_a_folder(folder: Path) -> str:
    (folder / "file").write_text(TEXT)
    return "file/own.txt"


def holding(content: bytes) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / "own.txt").write_bytes(content)
        return "own.txt"

    return write


BAD = {
    "missing": (missing, r"no .*nowhere\.txt: workload\.text must be a UTF-8 text file, .* data_dir"),
    "folder": (a_folder, r"own\.txt cannot be read: Is a directory"),
    "file as folder": (not_in_a_folder, r"own\.txt cannot be read: Not a directory"),
    "empty": (holding(b""), r"own\.txt is empty"),
    "one character": (holding(b"a"), r"workload\.text=own\.txt: the training split has 0 tokens, .* needs 9"),
    "short": (holding(b"one line\n"), r"the training split has 8 tokens, but a window needs 9: .*context=8"),
    "short at its end": (holding(b"ab" * 80), r"the validation split has 8 tokens"),
    "latin-1": (
        holding(TEXT.encode() + b"caf\xe9 "),
        r"own\.txt is not UTF-8: byte 1183 is 0xe9 \(.*level=byte",
    ),
    "UTF-16": (holding(TEXT.encode("utf-16")), r"own\.txt is UTF-16 or no text .*iconv"),
    "UTF-16 without its mark": (holding(TEXT.encode("utf-16-le")), r"own\.txt is UTF-16 or no text .*iconv"),
    "cut off": (
        holding(TEXT.encode() + "é".encode()[:1]),
        r"is not UTF-8: byte 1180 is 0xc3 \(unexpected end",
    ),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, why: str):
    make_file, message = BAD[why]
    with pytest.raises(UserError, match=message) as caught:
        make(text=make_file(tmp_path)).prepare(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(_path: Path) -> bytes:  # root may read everything, so chmod would not do
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"own\.txt cannot be read: Permission denied"):
        make(text="own.txt").prepare(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": "word"}, "level must be char or byte, got word"),
        ({"heads": 3}, "heads must divide width=8, got 3"),
        ({"context": 0}, "context must be at least 1, got 0"),
        ({"metric": "bits"}, r"metric must be one of loss, accuracy \(lm task\), got bits"),
    ],
)
def test_a_bad_option_is_named(change: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        make(**change)


def test_the_command_line_prints_the_line_and_exits_with_2(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
):
    done = command("workload=tiny_lm", "workload.text=nowhere.txt", f"data_dir={tmp_path}", "log=none")
    assert done.returncode == 2
    assert "nowhere.txt: workload.text must be a UTF-8 text file" in " ".join(
        (done.stdout + done.stderr).split()
    )
    assert "Traceback" not in done.stdout + done.stderr


# -- known files -------------------------------------------------------------------------------------


def test_a_known_file_is_fetched_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import hashlib

    served = tmp_path / "served.txt"
    served.write_text(TEXT)
    source = Source(served.as_uri(), hashlib.sha256(TEXT.encode()).hexdigest())
    monkeypatch.setitem(dict_of(text.KNOWN), "text/tinyshakespeare.txt", source)
    make(download=True).prepare(tmp_path)
    path = tmp_path / "text" / "tinyshakespeare.txt"
    assert path.read_text() == TEXT
    served.unlink()
    make(download=True).prepare(tmp_path)
    path.write_text(TEXT + "!")
    with pytest.raises(UserError, match=r"tinyshakespeare\.txt is damaged"):
        make().prepare(tmp_path)


def dict_of(known: Any) -> dict[str, Source]:
    assert isinstance(known, dict)
    return known


@pytest.mark.parametrize(
    ("name", "file", "url"),
    [
        ("tiny_lm", "text/tinyshakespeare.txt", "karpathy/char-rnn/master/data/tinyshakespeare/input.txt"),
        ("tiny_lm_wikitext2", "text/wikitext2.train.txt", "word_language_model/data/wikitext-2/train.txt"),
    ],
)
def test_a_missing_known_file_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str, url: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        make(name).prepare(Path("data"))
    line = one_line(str(caught.value))  # as a summary shows it
    assert line.startswith(f"no data/{file}: save https://") and url in line
    for part in ("data_dir=", "BENCH_DATA=", "workload=tiny_lm_pydocs needs no files"):
        assert part in line


def test_wikitext2_keeps_its_own_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import hashlib

    contents = {"train": TEXT, "valid": "a stormy night " * 9, "test": "the rain fell, é " * 9}
    (tmp_path / "text").mkdir()
    for part, content in contents.items():
        (tmp_path / "text" / f"wikitext2.{part}.txt").write_bytes(content.encode())
    digests = {part: hashlib.sha256(content.encode()).hexdigest() for part, content in contents.items()}
    monkeypatch.setattr(WikiText2, "files", digests)
    workload = make("tiny_lm_wikitext2")
    workload.prepare(tmp_path)
    order = sorted(set(TEXT))
    found = splits(workload)
    for part, content in zip(("train", "validation", "test"), contents.values(), strict=True):
        ids = [order.index(c) if c in order else len(order) for c in content]
        x, y = (t.flatten().tolist() for t in found[part])
        assert x == ids[: len(x)] and y == ids[1 : len(y) + 1] and len(content) - len(x) <= 8


@pytest.mark.data
def test_tiny_shakespeare_as_it_is_shipped(data_dir: Path):
    if not (data_dir / "text" / "tinyshakespeare.txt").exists():
        pytest.skip(f"no text/tinyshakespeare.txt in {data_dir}: set BENCH_DATA to the folder that holds it")
    config = compose(["workload=tiny_lm"])["workload"]
    workload: LanguageModelling = build_part("workload", config, prefix="")
    workload.prepare(data_dir)
    assert workload.num_classes == 66
    assert {k: tuple(x.shape) for k, (x, _) in splits(workload).items()} == {
        "train": (7842, 128), "validation": (435, 128), "test": (435, 128),
    }  # fmt: skip
    torch.manual_seed(0)
    task, _ = workload.build(1, CPU)
    assert float(task.losses(task.data.next()).mean().detach()) == pytest.approx(math.log(66), abs=0.1)
    assert workload.eval_every % workload.batch_size == 0
    assert 20 <= workload.budget_samples / workload.eval_every <= 200


def test_nothing_heavy_comes_with_the_workloads_config():
    code = (
        "import sys, workloads.pydocs as d; d.data_id();"
        "print([m for m in ('torch', 'numpy', 'hydra') if m in sys.modules])"
    )
    repo = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
