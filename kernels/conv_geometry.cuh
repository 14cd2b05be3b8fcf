/* conv_geometry.cuh: which source pixel a tap of a convolution reads, forward and transposed. */
#pragma once

struct Tap { int row, col; };

// Rows and columns of one axis pair. Forward: source = out * stride - pad + tap * dilation.
// Adjoint: the same equation solved for `out`; no solution where the stride does not divide.
struct Geometry {
  int kernel_cols, stride_rows, stride_cols, pad_top, pad_left, dilation_rows, dilation_cols;
  int source_rows, source_cols;

  __device__ __forceinline__ Tap tap(int index) const { return {index / kernel_cols, index % kernel_cols}; }

  // Finds the source pixel of destination pixel (i, j) at a tap; false where it lies outside (a zero).
  template <bool ADJOINT_MAP> __device__ __forceinline__ bool source(int i, int j, Tap t, int& row, int& col) const {
    if constexpr (ADJOINT_MAP) {
      int y = i + pad_top - t.row * dilation_rows, x = j + pad_left - t.col * dilation_cols;
      if (y < 0 || x < 0) return false;
      row = y / stride_rows;
      col = x / stride_cols;
      if (row * stride_rows != y || col * stride_cols != x) return false;
      return row < source_rows && col < source_cols;
    } else {
      row = i * stride_rows - pad_top + t.row * dilation_rows;
      col = j * stride_cols - pad_left + t.col * dilation_cols;
      return row >= 0 && row < source_rows && col >= 0 && col < source_cols;
    }
  }
};

// A destination pixel: image, row, column; `inside` is false past the last one.
struct Pixel {
  int image, row, col;
  bool inside;
};

// The pixels of a batch of images, counted through. `inverse_plane` is 1 / (rows * cols): a product and a correction by
// one replace the 64-bit division, which costs a subroutine and its stack.
struct Pixels {
  int images, rows, cols;
  double inverse_plane;

  __device__ __forceinline__ int64_t count() const { return (int64_t)images * rows * cols; }

  __device__ __forceinline__ Pixel at(int64_t index) const {
    const int64_t plane = (int64_t)rows * cols;
    const bool inside = index < plane * images;
    if (!inside) index = 0;
    int image = (int)((double)index * inverse_plane);
    int64_t within = index - image * plane;
    if (within < 0) {
      --image;
      within += plane;
    } else if (within >= plane) {
      ++image;
      within -= plane;
    }
    const int row = (int)((unsigned)within / (unsigned)cols);
    return {image, row, (int)within - row * cols, inside};
  }
};

// Bit k tells whether tap k meets the image anywhere in this block's pixels; taps past 63 count as active.
// Every thread must call it: it holds one barrier per tap.
template <class Meets> __device__ __forceinline__ uint64_t active_taps(int taps, Meets meets) {
  uint64_t mask = ~0ull;
  for (int k = 0; k < taps && k < 64; ++k)
    if (!__syncthreads_or(meets(k))) mask &= ~(1ull << k);
  return mask;
}

__device__ __forceinline__ int next_tap(int tap, int taps, uint64_t active) {
  do { ++tap; } while (tap < taps && tap < 64 && !(active >> tap & 1));
  return tap;
}
