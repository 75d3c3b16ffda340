"""The precisions that a workload may train in; known without importing torch."""

PRECISIONS = ("fp32", "tf32", "bf16")
