"""Published claims, tried as experiments: each module turns an experiment's tables into a verdict."""
