"""What is proved about distances: bounds by balls and by intervals, and certificates of them."""
