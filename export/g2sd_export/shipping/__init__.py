"""From a classifier's ONNX file to a bundle for a device: files, proofs, a race, a choice."""
