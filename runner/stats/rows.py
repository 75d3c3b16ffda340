"""Rows of a table as arrays: a frame takes 30 µs to say what a column of five rows holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Rows:
    """Columns of one length, read as those of a frame are.

    Attributes:
        columns: name -> its values, (rows,); text, and what pandas may lack, are objects.
        count: rows.
    """

    columns: Mapping[str, np.ndarray]
    count: int

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Rows:
        """The rows of a frame."""
        return cls({str(name): values.to_numpy() for name, values in frame.items()}, len(frame))

    def at(self, places: slice | np.ndarray) -> Rows:
        """The rows at these places, in that order."""
        columns = {name: values[places] for name, values in self.columns.items()}
        return Rows(columns, len(np.arange(self.count)[places]))

    def assign(self, **columns: np.ndarray) -> Rows:
        """With other columns, or more."""
        return Rows({**self.columns, **columns}, self.count)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __len__(self) -> int:
        return self.count
