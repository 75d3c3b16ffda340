"""Diagnostics: one file each (:mod:`runner.contract.diagnostic`)."""
