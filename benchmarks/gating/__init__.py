"""Parts of the gate study."""
