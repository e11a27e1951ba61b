"""Compress masked-autoencoder vision transformers into students that are proven equal to the file that ships."""

__version__ = "0.1.0"
