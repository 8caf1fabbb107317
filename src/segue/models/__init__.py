"""Models: backbones behind the protocols of `segue.types`. Nothing is imported here; the leaves are heavy."""
