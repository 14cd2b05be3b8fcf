/* sampling.cuh: which inputs an output of a resize takes, and which outputs take an input. One axis at a time: row o of
 * the map has TAPS weights, at clamp(first(o) + k, 0, in - 1). The file that includes this has `real` and TAPS.
 */
#pragma once
#include "scalar.cuh"

using acc = accumulate<real>::type;

struct Axis {
  int in, out;
  double scale, center;
};

struct Taps {
  int first;
  acc w[TAPS];
};

__device__ __forceinline__ int clamp(int i, int n) { return min(max(i, 0), n - 1); }

// Keys' cubic at distance |d| <= 1 and 1 <= |d| <= 2.
__device__ __forceinline__ acc cubic_near(acc d, acc a) {
  return ((a + acc(2)) * d - (a + acc(3))) * d * d + acc(1);
}

__device__ __forceinline__ acc cubic_far(acc d, acc a) {
  return a * (d - acc(1)) * (d - acc(2)) * (d - acc(2));  // the factors are exact, and nothing cancels
}

// The coordinate is kept in double, so that its fraction is right to the last bit of a float at any size;
// "nearest" alone takes the type and the roundings that torch has, since they decide between two pixels.
__device__ __forceinline__ Taps taps(const Axis& axis, int o) {
  Taps t;
  if constexpr (TAPS == 1) {
    const acc center = acc(axis.center);
    const acc s = max(fma(acc(axis.scale), acc(o) + center, -center), acc(0));
    t.first = min((int)floorf(float(s + center)), axis.in - 1);
    t.w[0] = acc(1);
  } else if constexpr (TAPS == 2) {
    const double s = fma(axis.scale, o + axis.center, -axis.center);
    const double inside = fmin(fmax(s, 0.0), double(axis.in - 1));
    t.first = (int)inside;
    t.w[1] = acc(inside - t.first);
    t.w[0] = acc(1) - t.w[1];
  } else {
    const double s = fma(axis.scale, o + axis.center, -axis.center);
    const double below = floor(s);
    const acc d = acc(s - below);
    t.first = (int)below - 1;
    t.w[0] = cubic_far(d + acc(1), acc(-0.75));
    t.w[1] = cubic_near(d, acc(-0.75));
    t.w[2] = cubic_near(acc(1) - d, acc(-0.75));
    t.w[3] = cubic_far(acc(2) - d, acc(-0.75));
  }
  return t;
}

// What output t takes of input i: several taps may fall on an edge pixel.
__device__ __forceinline__ acc weight(const Taps& t, int i, int n) {
  acc sum = acc(0);
#pragma unroll
  for (int k = 0; k < TAPS; ++k) sum += clamp(t.first + k, n) == i ? t.w[k] : acc(0);
  return sum;
}

// First o whose taps reach input i or beyond, and first o whose taps all lie beyond i: between them are the
// outputs that take from i. Found from the taps themselves (both ends move up with o), so it is exact.
__device__ __forceinline__ int outputs_begin(const Axis& axis, int i) {
  int low = 0, high = axis.out;
  while (low < high) {
    const int o = (low + high) >> 1;
    if (clamp(taps(axis, o).first + TAPS - 1, axis.in) < i) low = o + 1;
    else high = o;
  }
  return low;
}

__device__ __forceinline__ int outputs_end(const Axis& axis, int i) {
  int low = 0, high = axis.out;
  while (low < high) {
    const int o = (low + high) >> 1;
    if (clamp(taps(axis, o).first, axis.in) <= i) low = o + 1;
    else high = o;
  }
  return low;
}
