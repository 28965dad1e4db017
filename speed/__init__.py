"""Speed: the shipped code against plain published formulations, and how cost grows."""
