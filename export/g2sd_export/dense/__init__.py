"""Segmenters and detectors: their ONNX files, the questions that every form of one is asked, and the judge of the answers."""
