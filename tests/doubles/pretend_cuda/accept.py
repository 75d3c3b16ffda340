"""``python -m tests.doubles.pretend_cuda.accept OPTION…``: ``scripts.gpu_check`` on the pretended device.

That goes as far as its units need nothing but tensors: ``--only preflight,parity,bits``.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from tests.doubles.pretend_cuda import library

    library.load()

from scripts import gpu_check
from tests.doubles.pretend_cuda import device

if __name__ == "__main__":
    device.install()
    sys.exit(gpu_check.main())
