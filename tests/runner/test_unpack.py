"""Packed files from elsewhere: what comes out of them has a limit, which is named in one line."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from runner import UserError, load
from runner.base.unpack import FREE, MEMBERS, MOST, Room, limit
from runner.boards.publish import configs
from runner.import_logs import main as import_logs
from runner.train import checkpoint
from tests.experiments import call, refusal
from workloads.libsvm import read_rows
from workloads.npz import read_arrays
from workloads.own import read_frame

Capture = pytest.CaptureFixture[str]
PLACE = "sub/study_0/fastmri_jax/trial_1"
ROWS = b"global_step,score,validation/ssim\n" + b"1,10,0.6\n" * 200_000  # 1.8 MB
META = b'{"workload.target_metric_name": "ssim", "workload.validation_target_value": 0.7}'


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_UNPACK_GB", "0.001")


def logs(path: Path, data: bytes = ROWS) -> Path:
    files = {f"{PLACE}/eval_measurements.csv": data, f"{PLACE}/meta_data_0.json": META}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(
        path, f"w:{path.suffix[1:]}", **({"preset": 0} if path.suffix == ".xz" else {})
    ) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ending", ["tar.gz", "tar.xz", "tar.bz2", "zip"])
def test_an_archive_of_logs(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    archive = logs(tmp_path / f"logs.{ending}")
    monkeypatch.setenv("RUNNER_UNPACK_GB", "0.001")
    said = refusal(import_logs, capsys, archive, tmp_path / "out")
    assert "holds more than 1 MB, unpacked" in said and "RUNNER_UNPACK_GB" in said
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("RUNNER_UNPACK_GB", "0.01")
    assert call(import_logs, capsys, archive, tmp_path / "out").code == 0
    monkeypatch.setenv("RUNNER_UNPACK_GB", "much")
    assert "RUNNER_UNPACK_GB=much" in refusal(import_logs, capsys, archive, tmp_path / "out")


def test_a_bomb_is_refused_without_being_told(tmp_path: Path, capsys: Capture) -> None:
    bomb = tmp_path / "bomb.tar.gz"
    member = tarfile.TarInfo(f"{PLACE}/eval_measurements.csv")
    member.size = 3 << 30
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        file.write(member.tobuf() + b"1,10,0.6\n" * 1000)
    assert "holds more than 268 MB" in refusal(import_logs, capsys, bomb, tmp_path / "out")


def test_a_header_that_is_a_bomb(tmp_path: Path, tight: None, capsys: Capture) -> None:
    """A name of three gigabytes stands in the archive before the file that has it."""
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 3 << 30
    with gzip.open(tmp_path / "bomb.tar.gz", "wb", compresslevel=1) as file:
        file.write(name.tobuf(format=tarfile.GNU_FORMAT) + bytes(4 << 20))
    assert "unpacked" in refusal(import_logs, capsys, tmp_path / "bomb.tar.gz", tmp_path / "out")


def test_links_in_a_folder_of_logs_are_not_followed(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "logs" / PLACE
    folder.mkdir(parents=True)
    (tmp_path / "secret.csv").write_bytes(ROWS[:60])
    (folder / "eval_measurements.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "meta_data_0.json").write_bytes(META)
    said = call(import_logs, capsys, tmp_path / "logs", tmp_path / "out")
    assert "link, not followed, treated as empty" in said.err
    assert load(tmp_path / "out")[0]["status"].tolist() == ["failed"]


def test_too_many_files(tmp_path: Path) -> None:
    room = Room(tmp_path)
    for _ in range(MEMBERS):
        room.count()
    with pytest.raises(UserError, match="1,000,000 files"):
        room.count()


@pytest.mark.parametrize(("ending", "opener"), [(".gz", gzip.open), (".xz", lzma.open), (".dat", gzip.open)])
def test_libsvm_rows(
    tmp_path: Path, tight: None, ending: str, opener: Callable[..., io.BufferedIOBase]
) -> None:
    path = tmp_path / f"rows{ending}"
    for content in (b"1 1:0.5\n" * 200_000, b"1 1:" + b"0" * 2_000_000):
        with opener(path, "wb") as file:
            file.write(content)
        with pytest.raises(UserError, match="unpacked"):
            read_rows(path)


def test_arrays(tmp_path: Path, tight: None) -> None:
    np.savez_compressed(tmp_path / "x.npz", x_train=np.zeros((100, 64, 64, 3), np.uint8))
    with pytest.raises(UserError, match="unpacked"):
        read_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.csv.zip", "rows.parquet"])
def test_tables_of_ones_own(tmp_path: Path, tight: None, name: str) -> None:
    rows = pd.DataFrame({"x": np.zeros(400_000), "y": np.zeros(400_000)})
    rows.to_parquet(tmp_path / name) if name.endswith("parquet") else rows.to_csv(
        tmp_path / name, index=False
    )
    with pytest.raises(UserError, match="unpacked"):
        read_frame(tmp_path / name)


def test_configs_of_a_board(tmp_path: Path, tight: None) -> None:
    (tmp_path / "configs.jsonl.gz").write_bytes(gzip.compress(b'{"id": "' + b"x" * 2_000_000 + b'"}'))
    with pytest.raises(UserError, match="unpacked"):
        configs(tmp_path)


def test_tables(tmp_path: Path, tight: None) -> None:
    """A column of equal values takes no room in the file."""
    (tmp_path / "imported.json").write_text("{}")
    for name in ("cells", "evals"):
        pd.DataFrame({"id": np.zeros(200_000)}).to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(UserError, match="unpacked"):
        load(tmp_path)


def test_checkpoints(tmp_path: Path) -> None:
    """torch packs nothing, and would unpack whatever is."""
    torch.save({"a": torch.zeros(1000)}, tmp_path / "ours.pt")
    with zipfile.ZipFile(tmp_path / "ours.pt") as ours, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as bomb:
        for record in ours.infolist():
            bomb.writestr(record.filename, ours.read(record), zipfile.ZIP_DEFLATED)
    assert checkpoint.damage(tmp_path / "ours.pt") is None
    assert "compressed" in (checkpoint.damage(tmp_path / "bomb.pt") or "")


def test_limits_follow_the_size_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(14_000_000))
    assert limit(path) == 700_000_000
    path.write_bytes(b"")
    assert limit(path) == FREE and limit(tmp_path) == MOST
