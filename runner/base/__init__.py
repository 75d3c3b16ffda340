"""What every room stands on: errors, files, paths, terminals. Knows nothing of training."""
