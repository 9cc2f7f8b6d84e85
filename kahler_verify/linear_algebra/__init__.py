"""Products, complex rows as real planes, small Cholesky factors, and what is kept of weights."""
