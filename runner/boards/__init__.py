"""From an experiment's tables to boards that people read, publish and check."""
