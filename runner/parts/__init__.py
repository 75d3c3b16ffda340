"""Algorithms put together from parts, the project's own and those from elsewhere."""
