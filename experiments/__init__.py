"""What papers claim of trained models, measured: one folder for each experiment."""
