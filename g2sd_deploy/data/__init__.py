"""Image sources, augmentation and corruptions."""
