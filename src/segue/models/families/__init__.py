"""One file per family of models; each returns a `LatentDiffusion`."""
