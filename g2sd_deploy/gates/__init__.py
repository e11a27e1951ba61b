"""Gates: what a run is held against, and whether it passes. A check computes no predictions; it reads what a run recorded."""
