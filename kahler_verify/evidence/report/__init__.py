"""Reports of a cross-check: tables for the terminal, JSON, pictures and one self-contained page."""

from kahler_verify.evidence.report.complex_plane import decoded_samples, latent_plane
from kahler_verify.evidence.report.page import save_picture, write_html, write_json
from kahler_verify.evidence.report.summary import summary
from kahler_verify.evidence.report.tables import print_table

__all__ = [
    "decoded_samples",
    "latent_plane",
    "print_table",
    "save_picture",
    "summary",
    "write_html",
    "write_json",
]
