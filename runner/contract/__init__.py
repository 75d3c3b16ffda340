"""All that a plugin may touch: the algorithm and its task, batches, kinds of tasks, costs, seeds."""
