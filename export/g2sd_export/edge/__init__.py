"""What runs on the device: the standard library, numpy and Pillow; a runtime is imported inside functions.

This folder is copied unchanged into every bundle as the package ``edge``, so it imports itself by relative imports only.
"""
