"""How pixels move between frames. Nothing is imported here; the leaves are heavy."""
