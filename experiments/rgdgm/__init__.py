"""*The Riemannian geometry of deep generative models*: its shortcut by the encoder (S2), S4."""
