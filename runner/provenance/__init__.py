"""What a number was made of: sources, data files, commit; and whose code may run."""
