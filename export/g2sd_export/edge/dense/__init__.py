"""Segmentation and detection on the device: from an image to a map of classes, or to boxes and masks, and to a picture of them.

Like the folder above, it needs the standard library, numpy and Pillow, and is copied unchanged into every bundle.
"""
