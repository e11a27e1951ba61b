"""ViT encoders, masked autoencoders and classifiers, and the files that hold them."""
