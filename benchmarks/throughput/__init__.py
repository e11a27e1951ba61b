"""Parts of train_throughput.py: what is trained, what it must compute, and the two sides that train it."""
