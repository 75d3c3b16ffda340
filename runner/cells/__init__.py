"""Cells on disk: their folders, states, locks, tables, and the launches that brought them there."""
