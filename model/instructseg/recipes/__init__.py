"""One folder per system: configuration, modeling, processing, checkpoint."""
