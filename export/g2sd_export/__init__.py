"""From a trained model to a bundle that runs on a device: ONNX, parity, bundles; never imports g2sd_deploy."""
