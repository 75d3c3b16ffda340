"""From overrides to the resolved config of a cell."""
