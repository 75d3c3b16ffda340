"""Inside the worker: the session of one cell, its loop, clock and checkpoints."""
