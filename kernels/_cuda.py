"""The one import of numba's CUDA target.

The target that was part of numba is deprecated there and lives on in the package numba-cuda, which is in
maintenance and takes over the name ``numba.cuda``. Every kernel in Python takes ``cuda`` from here, so
that it can move again.
"""

from numba import cuda

__all__ = ["cuda"]
