"""Rivals, and the harness that times them against the package: ``kahler-verify bench``.

Lives beside the package, not in it: rivals are written as their users would write them at their
best, and share no code with the kernels.  JAX is optional (``pip install .[bench]``).
"""
