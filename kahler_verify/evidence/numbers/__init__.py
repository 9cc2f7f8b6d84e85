"""Number systems, and definitions evaluated in them."""
