"""Grids on a SLURM cluster, through submitit: arrays of tasks, each of which trains one or more cells."""
