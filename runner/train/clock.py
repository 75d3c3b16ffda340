"""The clock: one timeline cut into closed accounts, so that the accounts add up to the wall time.

``setup``, ``train`` and ``swap`` are charged to the algorithm; ``eval``, ``log``, ``checkpoint`` and
``warmup`` are not. The device is synchronised only where one account ends and another begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CHARGED = ("setup", "train", "swap")
FREE = ("eval", "log", "checkpoint", "warmup")


class Clock:
    """Every moment from construction on belongs to exactly one account.

    Args:
        synchronize: waits until the device has done what it was given.
        now: a monotonic clock in seconds; for tests.
    """

    def __init__(
        self, synchronize: Callable[[], object] = lambda: None, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._synchronize, self._now = synchronize, now
        self.accounts: dict[str, float] = dict.fromkeys((*CHARGED, *FREE), 0.0)
        self.account = "warmup"
        self._since = now()

    def switch(self, account: str) -> str:
        """Close the present segment and open ``account``; returns the account that was open.

        Raises:
            KeyError: for an account that does not exist.
        """
        before = self.account
        if account not in self.accounts:
            raise KeyError(f"no such account: {account}")
        self._synchronize()
        now = self._now()
        self.accounts[before] += now - self._since
        self._since, self.account = now, account
        return before

    @contextmanager
    def on(self, account: str) -> Iterator[None]:
        """Book what happens inside on ``account``, then go on with the one before."""
        before = self.switch(account)
        try:
            yield
        finally:
            self.switch(before)

    @property
    def charged(self) -> float:
        """Charged seconds up to the last switch."""
        return sum(self.accounts[name] for name in CHARGED)

    @property
    def wall(self) -> float:
        """Seconds on all accounts up to the last switch."""
        return sum(self.accounts.values())

    def charged_until(self, limit: float) -> float:
        """The reading of ``now`` at which charged seconds reach ``limit`` if the open account is charged."""
        return self._since + max(0.0, limit - self.charged)

    def state_dict(self) -> dict[str, float]:
        """Seconds by account, up to the last switch."""
        return dict(self.accounts)

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from the accounts of a checkpoint; what passed since this clock was made is dropped."""
        self.accounts.update(state)
        self._since = self._now()
