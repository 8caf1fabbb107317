"""Other ways to restyle a clip, re-implemented from their papers on the one loop, to be compared and to be used."""
