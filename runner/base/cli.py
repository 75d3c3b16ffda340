"""How a command begins and ends: Ctrl-C, a reader that has gone (``| head``), a full disk, closed streams.

And what it prints for programs (``--json``).
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import IO, TYPE_CHECKING, Any, NoReturn

from runner.base.errors import UserError
from runner.base.plain import plain

if TYPE_CHECKING:
    from argparse import ArgumentParser

INTERRUPTED = 130  # what a shell reports for a process that Ctrl-C ended


def leave(main: Callable[[], int], tidies: bool = False) -> NoReturn:
    """Leave the process with ``main``'s exit code; 130 after Ctrl-C, 0 where nobody reads on.

    Args:
        main: the command.
        tidies: it has something to tidy up after Ctrl-C, and gets ``KeyboardInterrupt``; others end at once.
    """
    _listen(tidies)
    open_streams()
    try:
        code = _code(main)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except UserError as error:  # what was printed last
        print(f"error: {error}", file=sys.stderr)
        code = 2
    raise SystemExit(code)


def _code(main: Callable[[], int]) -> Any:
    try:
        return main()
    except SystemExit as end:  # argparse's, behind help too
        return end.code


def _listen(tidies: bool) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # nohup, and jobs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler if tidies else signal.SIG_DFL)


def open_streams() -> None:
    """Make standard output and error such that they can be printed to, whatever they were at the start."""
    with contextlib.suppress(OSError):
        while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(handle, True)  # workers have the same three
        os.close(handle)
    sys.stdout, sys.stderr = Output.of(sys.stdout, 1), Messages.of(sys.stderr, 2)


def add_json(parser: ArgumentParser) -> None:
    """Give a command ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")


def print_json(document: Any) -> None:
    """Print one JSON document; NaN and infinities are null, paths and the like are text.

    Args:
        document: mappings, lists and scalars, numpy's too; dataclasses are objects.
    """
    print(json.dumps(_strict(document), indent=1, allow_nan=False, default=str))


def _strict(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _strict(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(inner) for inner in value]
    value = getattr(value, "item", lambda: value)()  # a scalar of numpy's
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Stream(io.TextIOWrapper):
    @classmethod
    def of(cls, stream: IO[str] | None, handle: int) -> _Stream:
        """The same stream in this class; one on ``handle`` where Python was started without."""
        if not isinstance(stream, io.TextIOWrapper):
            return cls(open(handle, "wb", closefd=False), "utf-8", "replace")
        encoding, errors, lines = stream.encoding, stream.errors, stream.line_buffering
        return cls(stream.detach(), encoding, errors, line_buffering=lines)

    def write(self, text: str, /) -> int:
        return self.write_as_it_is(plain(text))

    def write_as_it_is(self, text: str, /) -> int:
        """Write colours, too."""
        with self._trouble():
            super().write(text)
        return len(text)

    @property
    def rich_proxied_file(self) -> _AsItIs:
        """Where rich writes: its text is plain already (:mod:`runner.base.terminal`), colours stay."""
        return _AsItIs(self)

    def flush(self) -> None:
        with self._trouble():
            super().flush()

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        yield


class _AsItIs:
    def __init__(self, stream: _Stream) -> None:
        self._stream, self.write = stream, stream.write_as_it_is

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Output(_Stream):
    """Standard output: nobody reads on is an end without a word, a full disk one with."""

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._drop()
            raise SystemExit(0) from None
        except OSError as error:
            self._drop()
            raise UserError(f"standard output: {error.strerror}") from None

    def _drop(self) -> None:
        """What Python still holds must go somewhere when it ends."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())


class Messages(_Stream):
    """Standard error: what cannot be written is lost, and ends no training."""

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        with contextlib.suppress(OSError):
            yield
