"""Language modelling on plain text: one file, or WikiText-2, or Python's own documentation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from runner.base.errors import UserError
from workloads import pydocs
from workloads.base import Data, Split, TensorWorkload
from workloads.datafiles import obtain
from workloads.transformer import Transformer, check_sizes

STARTS = (90, 95)  # per cent of a text that comes in one piece at which validation and test start


@dataclass(frozen=True)
class Source:
    """Where a known file comes from, and the SHA-256 that it has."""

    url: str
    sha256: str


TINY_SHAKESPEARE = Source(
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
KNOWN: Mapping[str, Source] = {"text/tinyshakespeare.txt": TINY_SHAKESPEARE}  # path under data_dir -> source
WIKITEXT2_URL = "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2"


class LanguageModelling(TensorWorkload):
    """Next-token prediction on windows of a text; the scored loss is in nats per token.

    A row is a window: ``context`` tokens, and as targets the tokens that follow them one by one. Windows
    of a split do not overlap, and what is left over at its end is dropped. No window crosses from one
    split into another, not even its last target.

    Args:
        level: ``char`` or ``byte``: what a token is. Characters are those of the training split, and one
            more token stands for all others.
        context: tokens in a window.
        width: size of the residual stream.
        layers: transformer blocks.
        heads: attention heads.
        download: fetch known files that are missing.

    The other arguments are those of :class:`TensorWorkload`.

    Raises:
        ValueError: for a size below one, heads that do not divide the width, or an unknown level.
    """

    task = "lm"
    model_kind = "transformer"
    input_range = None
    metrics: ClassVar[tuple[str, ...]] = ("loss", "accuracy")
    base_width: ClassVar[int] = 128  # that of the YAML: what settings are tuned at

    def __init__(
        self,
        *args: Any,
        level: str = "char",
        context: int = 128,
        width: int = 128,
        layers: int = 3,
        heads: int = 4,
        download: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if level not in ("char", "byte"):
            raise ValueError(f"level must be char or byte, got {level}")
        check_sizes(context=context, width=width, layers=layers, heads=heads)
        self.level, self.context, self.download = level, context, download
        self.width, self.layers, self.heads = width, layers, heads

    @abstractmethod
    def codes(self, root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Code points (or bytes) of the training, validation and test text, each (n,)."""

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`; rows are windows, (n, context) int64."""
        codes = self.codes(root)
        self._check_lengths(codes)
        vocabulary = np.arange(256) if self.level == "byte" else np.unique(codes[0])
        # An instance's own: how many characters there are depends on the text.
        self.num_classes = len(vocabulary) + (self.level == "char")  # pyright: ignore[reportAttributeAccessIssue]
        return Data(*(windows(encode(split, vocabulary), self.context) for split in codes))

    def model(self) -> nn.Module:
        """A fresh transformer."""
        return Transformer(self.num_classes, self.context, self.width, self.layers, self.heads)

    def param_kinds(self, model: nn.Module) -> Mapping[str, str]:
        """Roles; the output layer is the token embedding, so no matrix is the head."""
        kinds = super().param_kinds(model)
        return {name: "hidden" if kind == "head" else kind for name, kind in kinds.items()}

    def widths(self, model: nn.Module) -> Mapping[str, tuple[int, int]]:
        """The blocks' matrices; every fan-in is a multiple of the width."""
        blocks = {name: p for name, p in model.named_parameters() if "blocks." in name and p.dim() == 2}
        fans = {name: p.shape[1] for name, p in blocks.items()}
        return {name: (fan, fan * self.base_width // self.width) for name, fan in fans.items()}

    def _check_lengths(self, codes: Sequence[np.ndarray]) -> None:
        for split, tokens in zip(("training", "validation", "test"), codes, strict=True):
            if len(tokens) <= self.context:
                raise UserError(
                    f"{self.source}: the {split} split has {len(tokens)} tokens, but a window needs "
                    f"{self.context + 1}: take a longer text or a smaller workload.context={self.context}"
                )

    @property
    def source(self) -> str:
        """The text, for messages."""
        return self.name

    def _read(self, path: Path) -> np.ndarray:
        return code_points(path, self.level)


class TextFile(LanguageModelling):
    """Any text file: the first 90 % of it for training, 5 % each for validation and test.

    Args:
        text: path of the file, absolute or under ``data_dir``. A known file is fetched where it is missing,
            and checked. Others are taken as they are.

    The other arguments are those of :class:`LanguageModelling`.
    """

    def __init__(self, *args: Any, text: str = "text/tinyshakespeare.txt", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.text = text

    def codes(self, root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`LanguageModelling.codes`."""
        path = root / Path(self.text).expanduser()
        if self.text in KNOWN:
            known = KNOWN[self.text]
            obtain(path, known.url if self.download else None, known.sha256, _advice(known.url))
        return by_position(self._read(path))

    @property
    def source(self) -> str:
        """The file's path."""
        return f"workload.text={self.text}"


class WikiText2(LanguageModelling):
    """WikiText-2 in its official splits (Merity et al. 2016, arXiv 1609.07843).

    The version of words: rare ones are ``<unk>``, punctuation stands apart. Files as in PyTorch's example
    ``word_language_model``, as ``text/wikitext2.{train,valid,test}.txt`` under ``data_dir``.
    """

    files: ClassVar[Mapping[str, str]] = {
        "train": "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
        "valid": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
        "test": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
    }

    def codes(self, root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`LanguageModelling.codes`."""
        train, valid, test = (self._split(root, part) for part in ("train", "valid", "test"))
        return train, valid, test

    def _split(self, root: Path, part: str) -> np.ndarray:
        path, url = root / "text" / f"wikitext2.{part}.txt", f"{WIKITEXT2_URL}/{part}.txt"
        obtain(path, url if self.download else None, self.files[part], _advice(url))
        return self._read(path)


class PyDocs(LanguageModelling):
    """The language reference that comes with Python, as ``help()`` shows it (``pydoc_data.topics``).

    Args:
        data_id: which text it is, as :func:`workloads.pydocs.data_id` says; None for whichever this Python
            has. The text differs between Python versions, and so does what can be reached on it.

    The other arguments are those of :class:`LanguageModelling`.
    """

    base_width: ClassVar[int] = 64

    def __init__(self, *args: Any, data_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.data_id = data_id

    def codes(self, root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`LanguageModelling.codes`; ``root`` is not used."""
        found = pydocs.data_id()
        if self.data_id not in (None, found):
            raise UserError(
                f"workload.data_id={self.data_id} is the text of another Python's documentation; "
                f"that of this Python is {found}"
            )
        text = pydocs.text()
        return by_position(_from_bytes(text.encode(), self.level))


# -- from files to windows ---------------------------------------------------------------------------


def code_points(path: Path, level: str) -> np.ndarray:
    """The code points of a UTF-8 file, (n,) uint32, or at level ``byte`` its bytes, (n,) uint8.

    Characters are those of Python's text mode: no byte order mark, and a line feed at each line's end. Bytes
    are taken as they are.

    Raises:
        UserError: when there is no such file, it cannot be read, is empty or not UTF-8.
    """
    content = _content(path)
    if level == "char" and (content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content):
        raise UserError(
            f"{path} is UTF-16 or no text (it begins with its mark, or holds zero bytes): convert it with "
            f"iconv -f UTF-16 -t UTF-8, or take any bytes with workload.level=byte"
        )
    try:
        codes = _from_bytes(content, level)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x} ({error.reason}); "
            "convert it, or take any bytes with workload.level=byte"
        ) from error
    if not len(codes):
        raise UserError(f"{path} is empty")
    return codes


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"no {path}: workload.text must be a UTF-8 text file, by its full path or relative to data_dir"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _from_bytes(content: bytes, level: str) -> np.ndarray:
    if level == "byte":
        return np.frombuffer(content, np.uint8)
    text = content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def by_position(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first 90 % of a text, the next 5 %, and the last 5 %."""
    start, middle = (len(codes) * percent // 100 for percent in STARTS)
    return codes[:start], codes[start:middle], codes[middle:]


def encode(codes: np.ndarray, vocabulary: np.ndarray) -> Tensor:
    """Token ids, (n,) int64: positions in the sorted ``vocabulary``; its length for what is not in it."""
    at = np.searchsorted(vocabulary, codes)
    known = vocabulary[np.minimum(at, len(vocabulary) - 1)] == codes
    return torch.from_numpy(np.where(known, at, len(vocabulary)).astype(np.int64))


def windows(tokens: Tensor, context: int) -> Split:
    """Windows side by side, (n, context), and the same one token further on as targets."""
    n = (len(tokens) - 1) // context
    x, y = tokens[: n * context], tokens[1 : n * context + 1]
    # Memory of their own: a part that writes to its targets must not change inputs.
    return Split(x.view(n, context).clone(), y.view(n, context).clone())


def _advice(url: str) -> str:
    where = "under that name, or say where it is with data_dir=… or BENCH_DATA=…"
    return f"save {url} {where}; workload=tiny_lm_pydocs needs no files"
