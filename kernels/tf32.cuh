/* tf32.cuh: float32 numbers for the tensor cores' TF32 units. */
#pragma once

// x = high + low up to 2^-21 of x: `high` is rounded to TF32, the unit cuts what `low` has beyond TF32.
__device__ __forceinline__ void split(float x, unsigned& high, unsigned& low) {
  high = (__float_as_uint(x) + 0x1000u) & 0xffffe000u;
  low = __float_as_uint(x - __uint_as_float(high));
}
