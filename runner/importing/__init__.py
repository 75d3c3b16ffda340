"""Other benchmarks' logs as this project's tables."""
