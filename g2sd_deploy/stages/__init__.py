"""One file per stage: configuration and input artifacts in, one artifact out."""
