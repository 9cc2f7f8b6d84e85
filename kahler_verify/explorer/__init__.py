"""A page to look at: a latent space with its geometry, alive in a browser, or still in a report.

``subject`` is what is looked at and ``session`` what can be asked of it, neither of which knows of
the web; ``server`` serves a page on the loopback address; ``twin`` is the still page.
"""
