"""Laws that kernels and metrics obey, checked on drawn samples."""
