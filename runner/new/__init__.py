"""Scaffolds: the files of a new method or workload, which train and pass the checks as they are."""
