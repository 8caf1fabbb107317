"""Numbers for pictures and clips, whoever made them. Nothing is imported here; the leaves are heavy."""
