"""What executes generated kernels: by name, with their parameters, and in unrolled variants."""
