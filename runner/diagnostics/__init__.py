"""Diagnostics: one file each (:mod:`runner.diagnostic`)."""
