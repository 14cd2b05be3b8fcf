/* conv_depthwise.cu: convolution with one input channel per group, limited by memory traffic.
 *
 * formula     y[n,o,p,q] = act(a[o] sum_{r,s} w[o,r,s] x[n, o / multiplier, p*stride - pad + r*dilation, ...] + b[o] + e[n,o])
 *             ADJOINT: with the transpose of the sum with respect to x; BORDER: outside the image stand pixels of it
 * layout      depthwise_planes: any strides, lanes along columns; depthwise_channels: channels last, multiplier 1, channels
 *             a multiple of 4 (lanes along channels, 4 a thread), in a result of result_channels, of which the first given are
 *             these; WIDE: result in the sums' type
 * launch      depthwise_planes: (row groups * columns, planes) over 256 threads as wide as a plane, down to 32 x 8;
 *             depthwise_channels: (ceil(channels/128), row groups * ceil(columns/8), images), 32 x 8 threads
 * cost        2 kh kw flop per result; x and y once each. With stride 1 (and no BORDER) a thread makes ROWS results that lie `dilation` rows
 *             apart, so they share their source rows: kw (ROWS + kh - 1) / ROWS loads a result instead of kh kw
 * order       taps by source row, then column: the same sum on every run and on every GPU
 * measured    not measured
 * hot         depthwise_planes depthwise_channels
 * source      -
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64 float16 bfloat16; ADJOINT = 0; K = 0 3 5; ROWS = 1 4; BORDER = 0; WIDE = 0
 * specialise  real = float32 float64 float16 bfloat16; ADJOINT = 0; K = 0 3 5; ROWS = 1; BORDER = 1; WIDE = 0
 * specialise  real = float32 float64 float16 bfloat16; ADJOINT = 1; K = 0 3 5; ROWS = 1 4; BORDER = 0; WIDE = 0
 * specialise  real = float16 bfloat16; ADJOINT = 1; K = 0 3 5; ROWS = 1 4; BORDER = 0; WIDE = 1
 */
#include "conv_epilogue.cuh"
#include "conv_geometry.cuh"
#include "scalar.cuh"

using accum = accumulate<real>::type;
using quad = vec<accum, 4>;
using piece = vec<real, 4>;
using out = result_type<real, WIDE>::type;
using out_piece = vec<out, 4>;

constexpr int RESIDENT = sizeof(real) == 8 ? 1 : 2;  // blocks an SM that depthwise_channels is compiled for

// K = 0: any kernel; otherwise K x K, unrolled.
__device__ __forceinline__ constexpr int rows_of(int kernel_rows) { return K ? K : kernel_rows; }
__device__ __forceinline__ constexpr int cols_of(int kernel_cols) { return K ? K : kernel_cols; }

// Taps of any kernel, transposed, in a pixel's own steps; the few of an unrolled one are all visited.
__device__ __forceinline__ int first_tap(Progression axis, int place, int stride, int limit) {
  return ADJOINT && !K ? axis.first(place, stride, limit) : 0;
}
__device__ __forceinline__ int tap_step(Progression axis) { return ADJOINT && !K ? axis.step : 1; }

// The first row of group g when results `dilation` rows apart are taken ROWS at a time.
__device__ __forceinline__ int first_row(int g, int dilation) {
  return ROWS == 1 ? g : g / dilation * dilation * ROWS + g % dilation;
}

// Visits the source pixels that a thread's ROWS results need (stride 1), by rows: source row u lies u * dilation below the
// first and serves result j through kernel row u - j; transposed, the kernel rows run the other way. At each it calls
// read(y, z, serve), which loads the pixel and calls serve(add); that calls add(j, tap) for each result the pixel serves.
template <class Read> __device__ __forceinline__ void each_pixel(
    const Geometry& geometry, int kernel_rows, int row, int col, Read read) {
  const int high = rows_of(kernel_rows), wide = cols_of(geometry.kernel_cols);
#pragma unroll
  for (int u = 0; u < high + ROWS - 1; ++u) {
    const int down = (ADJOINT ? u - high + 1 : u) * geometry.dilation_rows;
    const int y = ADJOINT ? row + geometry.pad_top + down : row - geometry.pad_top + down;
    if (y < 0 || y >= geometry.source_rows) continue;
#pragma unroll
    for (int s = 0; s < wide; ++s) {
      const int across = s * geometry.dilation_cols;
      const int z = ADJOINT ? col + geometry.pad_left - across : col - geometry.pad_left + across;
      if (z < 0 || z >= geometry.source_cols) continue;
      read(y, z, [&](auto add) {
#pragma unroll
        for (int j = 0; j < ROWS; ++j) {
          const int r = ADJOINT ? high - 1 - (u - j) : u - j;
          if (r >= 0 && r < high) add(j, r * wide + s);
        }
      });
    }
  }
}

extern "C" __global__ void __launch_bounds__(256, 2) depthwise_planes(
    const real* __restrict__ source,  // [images, source_channels, source_rows, source_cols], strided
    const real* __restrict__ weight,  // [wide channels, kernel_rows, kernel_cols], dense
    const real* __restrict__ scale, const real* __restrict__ bias, const real* __restrict__ image_bias,  // see Epilogue
    out* __restrict__ result,         // [images, channels, rows, cols], strided
    int64_t source_n, int64_t source_c, int64_t source_h, int64_t source_w,
    int64_t result_n, int64_t result_c, int64_t result_h, int64_t result_w,
    int activation, int images, int channels, int multiplier, int source_rows, int source_cols, int rows, int cols, int kernel_rows,
    int kernel_cols, int stride_rows, int stride_cols, int pad_top, int pad_left, int dilation_rows,
    int dilation_cols, int tap_step_rows, int tap_step_cols, int inverse_rows, int inverse_cols, int border, int row_groups) {
  const Geometry geometry{kernel_cols, stride_rows,   stride_cols,   pad_top,    pad_left,
                          dilation_rows, dilation_cols, source_rows, source_cols, border};
  const int high = rows_of(kernel_rows), wide = cols_of(kernel_cols);
  const Epilogue<real> epilogue{scale, bias, image_bias, channels, activation};
  const unsigned planes = (unsigned)images * channels;
  for (unsigned plane = blockIdx.y * blockDim.y + threadIdx.y; plane < planes; plane += gridDim.y * blockDim.y) {
    const unsigned within = blockIdx.x * blockDim.x + threadIdx.x;  // images have under 2^32 pixels
    if (within >= (unsigned)row_groups * (unsigned)cols) continue;
    const int image = plane / channels, channel = plane % channels;
    const int group = (int)(within / (unsigned)cols), col = (int)(within - (unsigned)group * (unsigned)cols);
    const int row = first_row(group, dilation_rows);
    accum sum[ROWS] = {};
    // Forward, each result channel has one source channel; transposed, it gathers from `multiplier` of them.
    const int sources = ADJOINT ? multiplier : 1;
    for (int m = 0; m < sources; ++m) {
      const int from = ADJOINT ? channel * multiplier + m : channel / multiplier;
      const real* x = source + image * source_n + from * source_c;
      const real* w = weight + (int64_t)(ADJOINT ? from : channel) * high * wide;
      if constexpr (ROWS == 1) {
        const Progression down{tap_step_rows, inverse_rows}, across{tap_step_cols, inverse_cols};
#pragma unroll
        for (int r = first_tap(down, row + pad_top, stride_rows, high); r < high; r += tap_step(down))
#pragma unroll
          for (int s = first_tap(across, col + pad_left, stride_cols, wide); s < wide; s += tap_step(across)) {
            int y = 0, z = 0;
            if (geometry.source<ADJOINT, BORDER>(row, col, {r, s}, y, z))
              sum[0] += (accum)load(w[r * wide + s]) * (accum)load(x[y * source_h + z * source_w]);
          }
      } else {
        each_pixel(geometry, kernel_rows, row, col, [&](int y, int z, auto serve) {
          const accum value = load(x[y * source_h + z * source_w]);
          serve([&](int j, int tap) { sum[j] += (accum)load(w[tap]) * value; });
        });
      }
    }
    out* y = result + image * result_n + channel * result_c + col * result_w;
#pragma unroll
    for (int j = 0; j < ROWS; ++j)
      if (row + j * dilation_rows < rows)
        store(&y[(row + j * dilation_rows) * result_h],
              epilogue.rest(epilogue.affine(sum[j], channel), image, channel));
  }
}

// Channels last: a warp covers 128 channels of one column, a block 8 columns; weights wait in shared memory by tap.
extern "C" __global__ void __launch_bounds__(256, RESIDENT) depthwise_channels(
    const real* __restrict__ source,  // [images, source_rows, source_cols, channels]
    const real* __restrict__ weight,  // [channels, kernel_rows, kernel_cols], dense
    const real* __restrict__ scale, const real* __restrict__ bias, const real* __restrict__ image_bias,  // see Epilogue
    out* __restrict__ result,         // [images, rows, cols, channels] of result_channels
    int activation, int images, int channels, int result_channels, int source_rows, int source_cols, int rows, int cols, int kernel_rows, int kernel_cols,
    int stride_rows, int stride_cols, int pad_top, int pad_left, int dilation_rows, int dilation_cols, int tap_step_rows,
    int tap_step_cols, int inverse_rows, int inverse_cols, int border, int row_groups) {
  extern __shared__ __align__(16) unsigned char shared[];
  accum* taps = (accum*)shared;  // [kernel_rows * kernel_cols][128]
  const Geometry geometry{kernel_cols, stride_rows,   stride_cols,   pad_top,    pad_left,
                          dilation_rows, dilation_cols, source_rows, source_cols, border};
  const int high = rows_of(kernel_rows), wide = cols_of(kernel_cols), first = blockIdx.x * 128;
  for (int i = threadIdx.y * 32 + threadIdx.x; i < high * wide * 128; i += 256) {
    const int c = i / (high * wide), k = i % (high * wide);
    taps[k * 128 + c] = first + c < channels ? (accum)load(weight[(int64_t)first * high * wide + i]) : accum(0);
  }
  __syncthreads();
  const int lane = threadIdx.x * 4, channel = first + lane;
  const int col_blocks = (cols + 7) / 8;
  const int col = blockIdx.y % col_blocks * 8 + threadIdx.y;
  const int row = first_row(blockIdx.y / col_blocks, dilation_rows);
  if (channel >= channels || col >= cols) return;
  const Epilogue<real> epilogue{scale, bias, image_bias, channels, activation};
  for (int image = blockIdx.z; image < images; image += gridDim.z) {
    const real* x = source + (int64_t)image * source_rows * source_cols * channels + channel;
    quad sum[ROWS] = {};
    auto value_at = [&](int y, int z) { return *(const piece*)&x[((int64_t)y * source_cols + z) * channels]; };
    auto add = [&](const piece& value, int k, quad& to) {
      const quad w = *(const quad*)&taps[k * 128 + lane];
#pragma unroll
      for (int e = 0; e < 4; ++e) to.v[e] += w.v[e] * (accum)load(value.v[e]);
    };
    if constexpr (ROWS == 1) {
      const Progression down{tap_step_rows, inverse_rows}, across{tap_step_cols, inverse_cols};
#pragma unroll 1  // a row of loads in flight is enough, all of them would not fit the registers
      for (int r = first_tap(down, row + pad_top, stride_rows, high); r < high; r += tap_step(down))
#pragma unroll
        for (int s = first_tap(across, col + pad_left, stride_cols, wide); s < wide; s += tap_step(across)) {
          int y = 0, z = 0;
          if (geometry.source<ADJOINT, BORDER>(row, col, {r, s}, y, z)) add(value_at(y, z), r * wide + s, sum[0]);
        }
    } else {
      each_pixel(geometry, kernel_rows, row, col, [&](int y, int z, auto serve) {
        const piece value = value_at(y, z);
        serve([&](int j, int tap) { add(value, tap, sum[j]); });
      });
    }
#pragma unroll
    for (int j = 0; j < ROWS; ++j) {
      const int out_row = row + j * dilation_rows;
      if (out_row >= rows) continue;
      out_piece four;
#pragma unroll
      for (int e = 0; e < 4; ++e)
        store(&four.v[e], epilogue.rest(epilogue.affine(sum[j].v[e], channel + e), image, channel + e));
      *(out_piece*)&result[(((int64_t)image * rows + out_row) * cols + col) * result_channels + channel] = four;
    }
  }
}
