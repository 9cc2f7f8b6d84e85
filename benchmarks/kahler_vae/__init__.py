"""Does decoder geometry help a complex VAE? The experiment behind claim G8.

``python -m benchmarks.kahler_vae`` trains, samples, measures, and rewrites the results page. What
was fixed beforehand stands in :mod:`benchmarks.kahler_vae.declaration`.
"""
