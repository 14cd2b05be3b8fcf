/* separable_mma.cu: a depthwise and a 1x1 convolution in one, the second on the tensor cores; 16-bit, float32 sums.
 *
 * formula     m[n,c,p,q] = clip(u[c] sum_{r,s} w[c,r,s] x[n, c, p*stride - pad + r*dilation, ...] + v[c]), rounded to 16 bits;
 *             y[n,o,p,q] = clip(scale[o] sum_c W[o,c] m[n,c,p,q] + bias[o])
 * layout      CHANNELS_LAST 1: source and result channels last, channels even (a warp loads 64 of a pixel, 4 bytes a
 *             lane, and stores 16 bytes a lane); 0: any strides; weights [channel], [out channel][pitch], pitch a multiple of 8
 * launch      ceil(pixels/BM) * ceil(out channels/BN) blocks of 512 threads; shared bytes: the larger of 256 (BM + BN)
 *             (two slices of both operands) and the result's tile, and 512 (taps + 2) for the depthwise weights
 * cost        2 N Ho Wo C (Cout + kh kw ceil(Cout/BN)) flop; x, weights and y once from memory: m never leaves the chip.
 *             With stride 1 (ROWS = 4) a depthwise result takes kw (4 + kh - 1) / 4 loads. A block reads the 1x1 weights,
 *             2 C BN bytes, from the L2 cache
 * order       taps by column, then row; channels in order, 16 at a time inside the instruction: run to run
 * measured    not measured
 * hot         separable_mma
 * source      fusing the two: Zhang et al., "FCM", arXiv 2404.19331; fragments: PTX ISA, section 9.7.14
 * arch        80 86 89 90 100 120
 * specialise  real = float16 bfloat16; BM = 128; BN = 64 128; K = 0 3 5; ROWS = 1 4; CHANNELS_LAST = 0 1
 * specialise  real = float16 bfloat16; BM = 64; BN = 256; K = 0 3 5; ROWS = 1 4; CHANNELS_LAST = 0 1
 */
constexpr int THREADS = 512;

#include "separable.cuh"
#include "conv_multiply.cuh"

constexpr int BK = 64;                             // channels of a slice: a row of an operand is 128 bytes
constexpr int PIECES = BK / 8;                     // pieces of 16 bytes in a row of an operand
constexpr int WARPS_M = BM / 32, WARPS_N = THREADS / 32 / WARPS_M;  // each warp owns 32 x WARP_COLS results
constexpr int WARP_COLS = BN / WARPS_N;
constexpr int TILES_N = WARP_COLS / 8;
constexpr int LENGTH = CHANNELS_LAST ? BN : BM, PITCH = LENGTH + 8, LINES = CHANNELS_LAST ? BM : BN;  // the result's tile
constexpr int OPERANDS = 2 * (BM + BN) * BK, TILE = LINES * PITCH;  // elements
constexpr int SPACE = OPERANDS > TILE ? OPERANDS : TILE;

// Piece c of a row, moved so that the eight rows that ldmatrix reads together lie in different banks.
__device__ __forceinline__ int swizzled(int row, int c) { return row * BK + (c ^ (row & 7)) * 8; }

extern "C" __global__ void __launch_bounds__(THREADS, 1) separable_mma(
    const real* __restrict__ source,     // [images, channels, source_rows, source_cols], strided
    const real* __restrict__ depthwise,  // [channels, kernel_rows, kernel_cols], dense
    const real* __restrict__ mid_scale,  // [channels] or null
    const real* __restrict__ mid_bias,   // [channels] or null
    const real* __restrict__ packed,     // [out_channels, pitch]
    const real* __restrict__ scale,      // [out_channels] or null
    const real* __restrict__ bias,       // [out_channels] or null
    real* __restrict__ result,           // [images, out_channels, rows, cols], strided
    int64_t source_n, int64_t source_c, int64_t source_h, int64_t source_w, int64_t result_n, int64_t result_c,
    int64_t result_h, int64_t result_w, int images, int channels, int pitch, int out_channels, int source_rows,
    int source_cols, int rows, int cols, int kernel_rows, int kernel_cols, int stride_rows, int stride_cols, int pad_top,
    int pad_left, int dilation_rows, int dilation_cols, int row_groups, double inverse_plane, double mid_low,
    double mid_high, double low, double high) {
  extern __shared__ __align__(16) unsigned char shared[];
  real* operands = (real*)shared;                 // two of { pixels [BM][BK], weights [BN][BK] }
  accum* weights = (accum*)(operands + SPACE);    // two of [taps + 2][BK]
  __shared__ Pixel table[BM];
  const Window window{kernel_rows, kernel_cols,   stride_rows,   stride_cols, pad_top,
                      pad_left,    dilation_rows, dilation_cols, source_rows, source_cols};
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5, taps = window.taps();
  const int channel_tiles = (out_channels + BN - 1) / BN;  // those of the same pixels run together
  const int channel_base = blockIdx.x % channel_tiles * BN;
  const Pixels all{images, row_groups, cols, inverse_plane};
  if (thread < BM) table[thread] = pixel_of(all, blockIdx.x / channel_tiles, thread, BM, rows, dilation_rows);

  // Lanes along channels where they lie side by side, else along pixels.
  using pair = vec<accum, 2>;
  using piece = vec<real, 2>;
  auto pixels_of = [&](int slice) { return operands + (slice & 1) * (BM + BN) * BK; };
  auto make_pixels = [&](int slice) {
#pragma unroll 1  // two channels at four lines at a time: more would not fit the registers
    for (int v = thread; v < BM / RUN * BK / 2; v += THREADS) {
      const int line = CHANNELS_LAST ? v / (BK / 2) : v % (BM / RUN);
      const int within = (CHANNELS_LAST ? v % (BK / 2) : v / (BM / RUN)) * 2, c = slice * BK + within;
      const accum* w = weights + (slice & 1) * (taps + 2) * BK + within;
      const real* from = source + c * source_c;
      accum sum[RUN][2];
      depthwise_sums<2>(sum, window, table, BM, line, w, BK, [&](int image, int y, int z) {
        const real* x = from + image * source_n + y * source_h + z * source_w;
        if constexpr (CHANNELS_LAST) {
          const piece both = c < channels ? *(const piece*)x : piece{};
          return pair{load(both.v[0]), load(both.v[1])};
        } else {
          return pair{c < channels ? load(x[0]) : 0.f, c + 1 < channels ? load(x[source_c]) : 0.f};
        }
      });
      const pair by = *(const pair*)&w[taps * BK], more = *(const pair*)&w[(taps + 1) * BK];
#pragma unroll
      for (int j = 0; j < RUN; ++j) {
        piece out;
#pragma unroll
        for (int e = 0; e < 2; ++e)
          store(&out.v[e], clipped(sum[j][e] * by.v[e] + more.v[e], (float)mid_low, (float)mid_high));
        *(piece*)&pixels_of(slice)[swizzled(line + j * (BM / RUN), within / 8) + within % 8] = out;
      }
    }
  };
  auto copy_columns = [&](int slice) {
#pragma unroll
    for (int i = 0; i < BN * PIECES / THREADS; ++i) {
      const int row = (thread + THREADS * i) / PIECES, piece = thread % PIECES, at = slice * BK + piece * 8;
      const bool there = at < pitch && channel_base + row < out_channels;
      const real* from = there ? packed + (int64_t)(channel_base + row) * pitch + at : packed;
      cp_async16(&pixels_of(slice)[BM * BK + swizzled(row, piece)], from, there);
    }
    cp_async_commit();
  };
  auto load_weights = [&](int slice) {
    accum* to = weights + (slice & 1) * (taps + 2) * BK;
    load_slice<BK>(to, depthwise, mid_scale, mid_bias, slice * BK, channels, taps);
  };

  // While the tensor cores take slice k, slice k + 1 is made, and the depthwise weights of k + 2 are fetched.
  const int slices = (channels + BK - 1) / BK, warp_row = warp % WARPS_M * 32, warp_col = warp / WARPS_M * WARP_COLS;
  float sum[2][TILES_N][4] = {};
  copy_columns(0);
  load_weights(0);
  load_weights(1);
  __syncthreads();
  make_pixels(0);
  for (int slice = 0; slice < slices; ++slice) {
    cp_async_wait<0>();
    __syncthreads();  // the slice is there for every thread, and everyone is done with the one before
    if (slice + 1 < slices) {
      copy_columns(slice + 1);
      make_pixels(slice + 1);
      if (slice + 2 < slices) load_weights(slice + 2);
    }
    const real* pixels = pixels_of(slice);
    const real* columns = pixels + BM * BK;
#pragma unroll
    for (int k = 0; k < BK / 16; ++k) {
      unsigned a[2][4], b[TILES_N][2];
#pragma unroll
      for (int i = 0; i < 2; ++i)
        ldmatrix_x4(a[i], &pixels[swizzled(warp_row + 16 * i + (lane & 15), 2 * k + (lane >> 4))]);
#pragma unroll
      for (int j = 0; j < TILES_N; j += 2) {
        unsigned pair[4];
        ldmatrix_x4(pair, &columns[swizzled(warp_col + 8 * j + (lane & 7) + (lane >> 4) * 8, 2 * k + (lane >> 3 & 1))]);
        b[j][0] = pair[0];
        b[j][1] = pair[1];
        b[j + 1][0] = pair[2];
        b[j + 1][1] = pair[3];
      }
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < TILES_N; ++j) multiply(sum[i][j], a[i], b[j], real{});
    }
  }

  // The tile goes through shared memory, so that what leaves is contiguous: [pixel][channel] or [channel][pixel].
  __syncthreads();
#pragma unroll
  for (int j = 0; j < TILES_N; ++j)
#pragma unroll
    for (int f = 0; f < 2; ++f) {
      const int c = warp_col + 8 * j + (lane & 3) * 2 + f;
      const bool there = channel_base + c < out_channels;
      const float by = scale && there ? load(scale[channel_base + c]) : 1.f;
      const float more = bias && there ? load(bias[channel_base + c]) : 0.f;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int p = warp_row + 8 * i + (lane >> 2);
        store(&operands[CHANNELS_LAST ? p * PITCH + c : c * PITCH + p],
              clipped(sum[i / 2][j][i % 2 * 2 + f] * by + more, (float)low, (float)high));
      }
    }
  __syncthreads();
  if constexpr (CHANNELS_LAST) {
    const bool wide = out_channels % 8 == 0;
    for (int v = thread; v < LINES * LENGTH / 8; v += THREADS) {
      const int p = v / (LENGTH / 8), c = v % (LENGTH / 8) * 8;
      if (!table[p].inside) continue;
      const int64_t at = ((int64_t)table[p].image * rows + table[p].row) * cols + table[p].col;
      real* to = result + at * out_channels + channel_base + c;
      if (wide) {
        if (channel_base + c < out_channels) *(vec<real, 8>*)to = *(const vec<real, 8>*)&operands[p * PITCH + c];
      } else {
        for (int e = 0; e < 8 && channel_base + c + e < out_channels; ++e) to[e] = operands[p * PITCH + c + e];
      }
    }
  } else {
    auto at = [&](int p, int c) {
      return result + table[p].image * result_n + (channel_base + c) * result_c + table[p].row * result_h
             + table[p].col * result_w;
    };
    if (result_w == 1 && cols % 8 == 0) {  // 8 lines are then pixels of one row, one after another
      for (int v = thread; v < LINES * LENGTH / 8; v += THREADS) {
        const int c = v / (LENGTH / 8), p = v % (LENGTH / 8) * 8;
        if (channel_base + c < out_channels && table[p].inside)
          *(vec<real, 8>*)at(p, c) = *(const vec<real, 8>*)&operands[c * PITCH + p];
      }
    } else {
      for (int v = thread; v < LINES * LENGTH; v += THREADS) {
        const int c = v / LENGTH, p = v % LENGTH;
        if (channel_base + c < out_channels && table[p].inside) *at(p, c) = operands[c * PITCH + p];
      }
    }
  }
}
