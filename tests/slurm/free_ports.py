"""Print the first of some free ports in a row, for ``SLURM_PORT``."""

from __future__ import annotations

import random
import socket

ROW = 20


def main() -> None:
    start = next(port for port in random.sample(range(20000, 32000, ROW), 500) if all_free(port))
    print(start)


def all_free(start: int) -> bool:
    for port in range(start, start + ROW):
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


if __name__ == "__main__":
    main()
