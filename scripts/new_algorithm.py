"""The old name of ``python -m runner.new algorithm``."""

from __future__ import annotations

import sys

from runner.new.__main__ import main

if __name__ == "__main__":
    print("note: this is python -m runner.new algorithm by now", file=sys.stderr)
    sys.exit(main(["algorithm", *sys.argv[1:]]))
