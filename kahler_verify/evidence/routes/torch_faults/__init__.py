"""What torch differentiates wrongly without an error: each fault, and a measurement of all."""
