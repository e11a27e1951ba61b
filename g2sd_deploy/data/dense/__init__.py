"""Images with a truth for every pixel or every object: reading them, augmenting them, batches of them."""
