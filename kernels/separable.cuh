/* separable.cuh: the depthwise half of a separable convolution, for the tiles of separable.cu and separable_mma.cu.
 *
 * A tile has `lines` pixels. With ROWS = 4 (stride 1) four lines, `lines` / 4 apart, are one run: pixels of one column that
 * lie `dilation` rows apart, so that they share their source rows. With ROWS = 1 they are any pixels. The file that
 * includes this one says how many THREADS a block has.
 */
#pragma once
#include "conv_geometry.cuh"
#include "scalar.cuh"

using accum = accumulate<real>::type;

constexpr int RUN = 4;  // lines that a thread sums up

struct Window {
  int kernel_rows, kernel_cols, stride_rows, stride_cols, pad_top, pad_left, dilation_rows, dilation_cols;
  int source_rows, source_cols;

  // K = 0: any kernel; otherwise K x K, unrolled.
  __device__ __forceinline__ int high() const { return K ? K : kernel_rows; }
  __device__ __forceinline__ int wide() const { return K ? K : kernel_cols; }
  __device__ __forceinline__ int taps() const { return high() * wide(); }
};

// The pixel of a line of tile `tile`; `all` counts runs (ROWS = 4: row groups and columns) or pixels.
__device__ __forceinline__ Pixel pixel_of(const Pixels& all, int64_t tile, int line, int lines, int rows, int dilation) {
  if constexpr (ROWS == 1) return all.at(tile * lines + line);
  const int runs = lines / RUN, j = line / runs;
  Pixel p = all.at(tile * runs + line % runs);
  p.row = p.row / dilation * dilation * RUN + p.row % dilation + j * dilation;
  p.inside = p.inside && p.row < rows;
  return p;
}

// sum[j] = the depthwise sums of N channels at lines `first` + j * lines / 4. `weights` are those of the N channels of the
// first tap, in shared memory; the next tap's lie `pitch` behind. `at(image, y, z)` loads N channels of a source pixel.
template <int N, class Load> __device__ __forceinline__ void depthwise_sums(
    accum (&sum)[RUN][N], const Window& window, const Pixel* table, int lines, int first, const accum* weights, int pitch,
    Load at) {
  const int high = window.high(), wide = window.wide();
#pragma unroll
  for (int j = 0; j < RUN; ++j)
#pragma unroll
    for (int e = 0; e < N; ++e) sum[j][e] = accum(0);
  if constexpr (ROWS == RUN) {
    const Pixel p = table[first];
    if (!p.inside) return;
#pragma unroll 1  // a column of loads in flight is enough, all of them would not fit the registers
    for (int s = 0; s < wide; ++s) {
      const int z = p.col - window.pad_left + s * window.dilation_cols;
      if (z < 0 || z >= window.source_cols) continue;
#pragma unroll
      for (int u = 0; u < high + RUN - 1; ++u) {
        const int y = p.row - window.pad_top + u * window.dilation_rows;
        if (y < 0 || y >= window.source_rows) continue;
        const vec<accum, N> value = at(p.image, y, z);
#pragma unroll
        for (int j = 0; j < RUN; ++j) {
          const int r = u - j;
          if (r < 0 || r >= high) continue;
          const vec<accum, N> w = *(const vec<accum, N>*)&weights[(r * wide + s) * pitch];
#pragma unroll
          for (int e = 0; e < N; ++e) sum[j][e] += w.v[e] * value.v[e];
        }
      }
    }
  } else {
#pragma unroll
    for (int j = 0; j < RUN; ++j) {
      const Pixel p = table[first + j * lines / RUN];
      if (!p.inside) continue;
#pragma unroll 1  // a row of loads in flight is enough
      for (int r = 0; r < high; ++r) {
        const int y = p.row * window.stride_rows - window.pad_top + r * window.dilation_rows;
        if (y < 0 || y >= window.source_rows) continue;
#pragma unroll
        for (int s = 0; s < wide; ++s) {
          const int z = p.col * window.stride_cols - window.pad_left + s * window.dilation_cols;
          if (z < 0 || z >= window.source_cols) continue;
          const vec<accum, N> value = at(p.image, y, z);
          const vec<accum, N> w = *(const vec<accum, N>*)&weights[(r * wide + s) * pitch];
#pragma unroll
          for (int e = 0; e < N; ++e) sum[j][e] += w.v[e] * value.v[e];
        }
      }
    }
  }
}

// Brings the weights of SLICE channels into shared memory, [taps + 2][SLICE]: by tap, then scale and shift of the result.
template <int SLICE> __device__ __forceinline__ void load_slice(
    accum* to, const real* __restrict__ depthwise, const real* __restrict__ scale, const real* __restrict__ shift,
    int first, int channels, int taps) {
  for (int i = threadIdx.x; i < (taps + 2) * SLICE; i += THREADS) {
    const int tap = i / SLICE, c = first + i % SLICE;
    accum value = accum(0);
    if (c < channels) {
      if (tap < taps) value = (accum)load(depthwise[(int64_t)c * taps + tap]);
      else if (tap == taps) value = scale ? (accum)load(scale[c]) : accum(1);
      else value = shift ? (accum)load(shift[c]) : accum(0);
    }
    to[i] = value;
  }
}

// NaN stays NaN.
__device__ __forceinline__ accum clipped(accum x, accum low, accum high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}
