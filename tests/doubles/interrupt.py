"""Ctrl-C while a command imports."""

from __future__ import annotations

# To be filled with the module whose import is interrupted; sitecustomize of the command's process.
INTERRUPT = """
import os, signal, sys
class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, AtImport())
"""
