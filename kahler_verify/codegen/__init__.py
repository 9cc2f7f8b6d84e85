"""From derived expressions to torch source."""
