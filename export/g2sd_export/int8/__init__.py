"""Eight-bit models: calibrated on training images, in the form that the target's runtime takes, accepted only by measurement."""
