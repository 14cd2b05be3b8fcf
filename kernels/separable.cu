/* separable.cu: a depthwise and a 1x1 convolution in one, on the ordinary cores, exact in the input's precision.
 *
 * formula     m[n,c,p,q] = clip(u[c] sum_{r,s} w[c,r,s] x[n, c, p*stride - pad + r*dilation, ...] + v[c]);
 *             y[n,o,p,q] = clip(scale[o] sum_c W[o,c] m[n,c,p,q] + bias[o])
 * layout      source and result of any strides; LANES 0: threads side by side read pixels, and write them; 1: channels;
 *             weights [channel], [channel][pitch of out channels], pitch a multiple of 4
 * launch      ceil(pixels/64) * ceil(out channels/BN) blocks of 256 threads; shared elements: the larger of 32 (68 + BN)
 *             (two slices of both operands) and the result's tile, and 32 (taps + 2) for the depthwise weights
 * cost        2 N Ho Wo C (Cout + kh kw ceil(Cout/BN)) flop; x, weights and y once from memory: m never leaves the chip.
 *             With stride 1 (ROWS = 4) a depthwise result takes kw (4 + kh - 1) / 4 loads
 * order       taps by column, then row; channels in order: the same sum on every run and on every GPU
 * measured    not measured
 * hot         separable
 * source      fusing the two: Zhang et al., "FCM", arXiv 2404.19331; register tiling: Volkov & Demmel 2008
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32; BN = 64 128; K = 0 3 5; ROWS = 1 4; LANES = 0 1
 * specialise  real = float64; BN = 64; K = 0 3 5; ROWS = 1 4; LANES = 0 1
 */
constexpr int THREADS = 256;

#include "separable.cuh"

constexpr int BM = 64;                // pixels of a tile
constexpr int BK = 16;                // channels of a slice: each thread makes 4 lines of one channel of it
constexpr int ROW = BM + 4;           // pitch of the pixels, so that lanes along channels write to different banks
constexpr int HALVES = BN / 64;       // a thread owns 4 pixels x 4 channels of each 64 x 64 part of the tile
constexpr int LOADS = BK * BN / 1024; // pieces of 4 weights that a thread fetches
constexpr int OPERANDS = 2 * BK * (ROW + BN);
constexpr int LENGTH = LANES ? BN : BM, PITCH = LENGTH + 4, LINES = LANES ? BM : BN;  // the result's tile
constexpr int SPACE = OPERANDS > LINES * PITCH ? OPERANDS : LINES * PITCH;

using quad = vec<accum, 4>;

extern "C" __global__ void __launch_bounds__(THREADS, 2) separable(
    const real* __restrict__ source,     // [images, channels, source_rows, source_cols], strided
    const real* __restrict__ depthwise,  // [channels, kernel_rows, kernel_cols], dense
    const real* __restrict__ mid_scale,  // [channels] or null
    const real* __restrict__ mid_bias,   // [channels] or null
    const real* __restrict__ packed,     // [channels, pitch]
    const real* __restrict__ scale,      // [out_channels] or null
    const real* __restrict__ bias,       // [out_channels] or null
    real* __restrict__ result,           // [images, out_channels, rows, cols], strided
    int64_t source_n, int64_t source_c, int64_t source_h, int64_t source_w, int64_t result_n, int64_t result_c,
    int64_t result_h, int64_t result_w, int images, int channels, int pitch, int out_channels, int source_rows,
    int source_cols, int rows, int cols, int kernel_rows, int kernel_cols, int stride_rows, int stride_cols, int pad_top,
    int pad_left, int dilation_rows, int dilation_cols, int row_groups, double inverse_plane, double mid_low,
    double mid_high, double low, double high) {
  extern __shared__ __align__(32) unsigned char shared[];
  accum* operands = (accum*)shared;     // two of { pixels [BK][ROW], columns [BK][BN] }
  accum* weights = operands + SPACE;    // two of [taps + 2][BK]
  __shared__ Pixel table[BM];
  const Window window{kernel_rows, kernel_cols,   stride_rows,   stride_cols, pad_top,
                      pad_left,    dilation_rows, dilation_cols, source_rows, source_cols};
  const int thread = threadIdx.x, taps = window.taps();
  const int channel_tiles = (out_channels + BN - 1) / BN;  // those of the same pixels run together
  const int channel_base = blockIdx.x % channel_tiles * BN;
  const Pixels all{images, row_groups, cols, inverse_plane};
  if (thread < BM) table[thread] = pixel_of(all, blockIdx.x / channel_tiles, thread, BM, rows, dilation_rows);

  const int mine = LANES ? thread % BK : thread / (BM / RUN), line = LANES ? thread / BK : thread % (BM / RUN);
  auto pixels_of = [&](int slice) { return operands + (slice & 1) * BK * (ROW + BN); };
  auto make_pixels = [&](int slice) {
    const int c = slice * BK + mine;
    const accum* w = weights + (slice & 1) * (taps + 2) * BK + mine;
    const real* from = source + c * source_c;
    accum sum[RUN][1];
    depthwise_sums<1>(sum, window, table, BM, line, w, BK, [&](int image, int y, int z) {
      return vec<accum, 1>{c < channels ? (accum)from[image * source_n + y * source_h + z * source_w] : accum(0)};
    });
#pragma unroll
    for (int j = 0; j < RUN; ++j) {
      const accum value = sum[j][0] * w[taps * BK] + w[(taps + 1) * BK];
      pixels_of(slice)[mine * ROW + line + j * (BM / RUN)] = clipped(value, (accum)mid_low, (accum)mid_high);
    }
  };
  vec<real, 4> next[LOADS];
  auto fetch_columns = [&](int slice) {
#pragma unroll
    for (int i = 0; i < LOADS; ++i) {
      const int v = (thread + THREADS * i) * 4, c = slice * BK + v / BN, column = channel_base + v % BN;
      next[i] = c < channels && column < pitch ? *(const vec<real, 4>*)&packed[(int64_t)c * pitch + column] : vec<real, 4>{};
    }
  };
  auto stash_columns = [&](int slice) {
#pragma unroll
    for (int i = 0; i < LOADS; ++i) *(vec<real, 4>*)&pixels_of(slice)[BK * ROW + (thread + THREADS * i) * 4] = next[i];
  };
  auto load_weights = [&](int slice) {
    accum* to = weights + (slice & 1) * (taps + 2) * BK;
    load_slice<BK>(to, depthwise, mid_scale, mid_bias, slice * BK, channels, taps);
  };

  // While slice k is multiplied, slice k + 1 is made, and the depthwise weights of k + 2 are fetched.
  const int slices = (channels + BK - 1) / BK, pixel4 = thread % 16 * 4, channel4 = thread / 16 * 4;
  accum sum[HALVES * 4][4] = {};
  fetch_columns(0);
  load_weights(0);
  load_weights(1);
  __syncthreads();
  make_pixels(0);
  stash_columns(0);
  for (int slice = 0; slice < slices; ++slice) {
    __syncthreads();  // the slice is there for every thread, and everyone is done with the one before
    const bool more = slice + 1 < slices;
    if (more) {
      fetch_columns(slice + 1);
      make_pixels(slice + 1);
      if (slice + 2 < slices) load_weights(slice + 2);
    }
    const accum* pixels = pixels_of(slice);
    const accum* columns = pixels + BK * ROW;
#pragma unroll
    for (int k = 0; k < BK; ++k) {
      const quad b = *(const quad*)&pixels[k * ROW + pixel4];
      quad a[HALVES];
#pragma unroll
      for (int h = 0; h < HALVES; ++h) a[h] = *(const quad*)&columns[k * BN + h * 64 + channel4];
#pragma unroll
      for (int i = 0; i < HALVES * 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] += a[i / 4].v[i % 4] * b.v[j];
    }
    if (more) stash_columns(slice + 1);
  }

  // The tile goes through shared memory, so that what leaves is contiguous: [pixel][channel] or [channel][pixel].
  __syncthreads();
#pragma unroll
  for (int i = 0; i < HALVES * 4; ++i) {
    const int c = i / 4 * 64 + channel4 + i % 4;
    const bool there = channel_base + c < out_channels;
    const accum by = scale && there ? (accum)load(scale[channel_base + c]) : accum(1);
    const accum more = bias && there ? (accum)load(bias[channel_base + c]) : accum(0);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      operands[LANES ? (pixel4 + j) * PITCH + c : c * PITCH + pixel4 + j] =
          clipped(sum[i][j] * by + more, (accum)low, (accum)high);
  }
  __syncthreads();
  for (int v = thread; v < LINES * LENGTH; v += THREADS) {
    const int p = LANES ? v / LENGTH : v % LENGTH, c = LANES ? v % LENGTH : v / LENGTH;
    if (channel_base + c < out_channels && table[p].inside)
      result[table[p].image * result_n + (channel_base + c) * result_c + table[p].row * result_h
             + table[p].col * result_w] = operands[LANES ? p * PITCH + c : c * PITCH + p];
  }
}
