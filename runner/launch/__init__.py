"""Who runs which cell where: the grid, the scheduler, worker processes, SLURM."""
