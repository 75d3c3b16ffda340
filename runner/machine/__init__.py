"""The machine under a cell: GPUs, cores, switches of the process, and who may have them."""
