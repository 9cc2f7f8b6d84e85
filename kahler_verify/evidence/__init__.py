"""The independent routes to each number, their comparison, and what they prove."""
