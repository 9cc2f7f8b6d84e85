"""Independent routes to what kernels compute."""
