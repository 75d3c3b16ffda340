"""A CUDA device that is not there: tensors say ``cuda:0`` and are computed on the CPU.

Mixing devices raises, as does a generator of another device; what waits for the device and what is copied to
or from it is kept in a log, with the line that asked for it. It finds misplaced tensors and generators, waits
and copies; it knows no races, no limits of memory, no real kernels and no speed.

``from tests.doubles.pretend_cuda import library`` and ``library.load()`` come before torch is imported, which
asks once for its device's hooks; ``device.install()`` comes behind it, for the rest of the process.
"""
