"""Networks that answer for every pixel or every object: a segmenter and a detector on the plain encoder."""
