"""Generated kernels, one module for each derivation; each imports torch alone.

Made by ``kahler-verify generate``.  Do not edit: ``kahler-verify generate --check`` compares them with
their derivations.
"""
