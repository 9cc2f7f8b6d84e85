"""Does decoder geometry help a complex VAE? The experiment behind claim G8.

``python -m experiments.kahler_vae`` trains, samples, measures, and rewrites the results page. What
was fixed beforehand stands in :mod:`experiments.kahler_vae.declaration`.
"""
