/* conv_geometry.cuh: which pixels a block of a convolution computes, and which source pixel a tap of them reads. */
#pragma once

// How a block finds its pixels and their sources: the constant PLAN of conv.cu and conv_mma.cu.
constexpr int IN_ORDER = 0;   // pixels in the order of memory (transposed: phase by phase), zeros outside the image
constexpr int BY_CLASS = 1;   // pixels by tap class, in nine rectangles: all pixels of a tile take part in the same taps
constexpr int BORDERED = 2;   // as IN_ORDER, and what lies outside the image is some pixel of it
constexpr int POINTWISE = 3;  // one tap, stride 1, no padding: sources lie in order, too

// What lies outside the image: Geometry::border. One reach of the padding is at most the image.
constexpr int REFLECT = 1, REPLICATE = 2;  // else circular

struct Tap { int row, col; };

// Rows and columns of one axis pair. Forward: source = out * stride - pad + tap * dilation.
// Adjoint: the same equation solved for `out`; no solution where the stride does not divide.
struct Geometry {
  int kernel_cols, stride_rows, stride_cols, pad_top, pad_left, dilation_rows, dilation_cols;
  int source_rows, source_cols, border;

  __device__ __forceinline__ Tap tap(int index) const { return {index / kernel_cols, index % kernel_cols}; }

  // The pixel of an axis of n that stands at a place, which may lie outside of it.
  __device__ __forceinline__ int stand_in(int place, int n) const {
    if (border == REFLECT) return n - 1 - abs(n - 1 - abs(place));
    if (border == REPLICATE) return min(max(place, 0), n - 1);
    return place < 0 ? place + n : place < n ? place : place - n;
  }

  // Finds the source pixel of destination pixel (i, j) at a tap; false where it lies outside (a zero).
  template <bool ADJOINT_MAP, bool HAS_BORDER = false>
  __device__ __forceinline__ bool source(int i, int j, Tap t, int& row, int& col) const {
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
      if constexpr (HAS_BORDER) {
        row = stand_in(row, source_rows);
        col = stand_in(col, source_cols);
        return true;
      }
      return row >= 0 && row < source_rows && col >= 0 && col < source_cols;
    }
  }
};

// Which taps of an axis a pixel of a transposed convolution takes part in: one in `step` = stride / gcd(stride, dilation).
// `inverse` is that of dilation / gcd modulo step. Where step is 1 all taps are visited, and `source` tells.
struct Progression {
  int step, inverse;

  // The first of them; `limit` where there is none. `place` is the pixel's row or column in the padded image.
  __device__ __forceinline__ int first(int place, int stride, int limit) const {
    if (step == 1) return 0;
    const int common = stride / step, rest = place % stride;
    return rest % common ? limit : rest / common * inverse % step;
  }
};

// The results that one block computes, and their taps. A transposed convolution falls into stride x stride phases: pixels
// that lie strides apart take part in the same taps. Forward there is one phase with all taps.
struct Phase {
  int row, col, step_rows, step_cols;                       // pixels (row + i step_rows, col + j step_cols)
  int tap_row, tap_col, tap_step_rows, tap_step_cols, high, wide;  // taps, high x wide of them

  __device__ __forceinline__ static Phase whole(int kernel_rows, int kernel_cols) {
    return {0, 0, 1, 1, 0, 0, 1, 1, kernel_rows, kernel_cols};
  }

  __device__ __forceinline__ static Phase transposed(const Geometry& g, int kernel_rows, Progression down,
                                                     Progression across, int row, int col) {
    const int r = down.first(row + g.pad_top, g.stride_rows, kernel_rows);
    const int s = across.first(col + g.pad_left, g.stride_cols, g.kernel_cols);
    return {row, col, g.stride_rows, g.stride_cols, r, s, down.step, across.step,
            (kernel_rows - r + down.step - 1) / down.step, (g.kernel_cols - s + across.step - 1) / across.step};
  }

  __device__ __forceinline__ int taps() const { return high * wide; }
  __device__ __forceinline__ Tap tap(int index) const {
    return {tap_row + index / wide * tap_step_rows, tap_col + index % wide * tap_step_cols};
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
    return {image, row, (int)((unsigned)within - (unsigned)row * (unsigned)cols), inside};
  }

  // Counted through in a phase, whose pixels lie in images of all_rows x all_cols; `rows` and `cols` are the largest phase's.
  __device__ __forceinline__ Pixel at(int64_t index, const Phase& phase, int all_rows, int all_cols) const {
    Pixel p = at(index);
    p.row = p.row * phase.step_rows + phase.row;
    p.col = p.col * phase.step_cols + phase.col;
    p.inside = p.inside && p.row < all_rows && p.col < all_cols;
    return p;
  }
};

// Where the tap classes of an axis change: it falls into three runs, [0, first), [first, second) and [second, size).
struct Runs {
  int first, second, size;

  __device__ __forceinline__ int start(int run) const { return run == 0 ? 0 : run == 1 ? first : second; }
  __device__ __forceinline__ int length(int run) const {
    return run == 0 ? first : run == 1 ? second - first : size - second;
  }
};

// What one block of threads computes: up to BN channels of a group at up to BM pixels that share their taps. Blocks go
// over channels, then over groups, then over phases, so that those that write between each other's pixels run together.
template <bool TRANSPOSED, int THE_PLAN, int BM, int BN> struct Part {
  int channel_base, group, all_rows, all_cols;
  int64_t pixel_base;
  Pixels pixels;  // of the batch, of its largest phase, or of a rectangle
  Phase phase;

  __device__ __forceinline__ Part(unsigned block, const Geometry& geometry, int images, int groups, int channels, int rows,
                                  int cols, int kernel_rows, Progression down, Progression across, Runs row_runs,
                                  Runs col_runs, double inverse_plane)
      : all_rows(rows), all_cols(cols), pixels{images, rows, cols, inverse_plane},
        phase(Phase::whole(kernel_rows, geometry.kernel_cols)) {
    const unsigned channel_tiles = (channels + BN - 1) / BN;
    channel_base = block % channel_tiles * BN;
    block /= channel_tiles;
    group = block % groups;
    block /= groups;
    if constexpr (THE_PLAN == BY_CLASS) {
      int run = 0;
      for (; run < 9; ++run) {
        pixels.rows = row_runs.length(run / 3);
        pixels.cols = col_runs.length(run % 3);
        const unsigned tiles = (unsigned)((pixels.count() + BM - 1) / BM);
        if (block < tiles) break;
        block -= tiles;
      }
      phase.row = row_runs.start(run / 3);
      phase.col = col_runs.start(run % 3);
    } else if constexpr (TRANSPOSED) {
      const unsigned high = min(geometry.stride_rows, rows), wide = min(geometry.stride_cols, cols);
      const unsigned place = block % (high * wide);
      block /= high * wide;
      pixels.rows = (rows + high - 1) / high;
      pixels.cols = (cols + wide - 1) / wide;
      phase = Phase::transposed(geometry, kernel_rows, down, across, place / wide, place % wide);
    }
    pixel_base = (int64_t)block * BM;
  }

  // Pixel i of the tile. A rectangle's are fewer than 2^31.
  __device__ __forceinline__ Pixel at(int i) const {
    if constexpr (THE_PLAN == BY_CLASS) {
      unsigned index = (unsigned)pixel_base + i;
      const unsigned plane = (unsigned)pixels.rows * pixels.cols;
      const bool inside = index < plane * pixels.images;
      if (!inside) index = 0;
      const unsigned image = index / plane, row = index % plane / pixels.cols;
      return {(int)image, (int)row + phase.row, (int)(index % plane - row * pixels.cols) + phase.col, inside};
    } else if constexpr (TRANSPOSED) {
      return pixels.at(pixel_base + i, phase, all_rows, all_cols);
    } else {
      return pixels.at(pixel_base + i);
    }
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
