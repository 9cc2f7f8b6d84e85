"""Locally adaptive normal laws: fans of geodesics, laws of them, and fits by maximum likelihood."""
