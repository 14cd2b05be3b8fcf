/* resize_conv_region.cu: a convolution of an enlarged image whose regions exist in shared memory alone, on the tensor
 * cores: 16-bit inputs, float32 sums.
 *
 * formula     y[n,o,p,q] = b[o] + sum_{c,r,s} w[o,c,r,s] u[n,c, p - top + r dilation, q - left + s dilation], u[n,c] the
 *             enlarged x[n,c] by the tables of resize_conv.cuh, rounded to 16 bits, zeros outside
 * layout      source channels last, [image][row][col][pitch], pitch a multiple of 8, zeros past the channels; weights
 *             [tap][channel][pitch]; result of any strides
 * launch      (tiles * ceil(channels/64), images) blocks of 256 threads; a tile is 8 x 16 pixels of the result; shared
 *             memory: 64 bytes for each pixel of u that its taps reach (at least 16640 bytes), then 8 KiB
 * cost        2 N Ho Wo Cout C kh kw flop, and TAPS^2 + 1 multiply-adds for each element of a region, once for the taps
 *             of 64 channels; (8 + reach) (16 + reach) / 128 elements for each pixel: 1.4 for 3 x 3 taps. bytes at least
 *             x + w + y once; a block reads 64 bytes of x TAPS^2 times for each pixel of the region and 32 channels
 * order       32 channels after 32, taps in order within, 16 products at a time inside the instruction: run to run
 * measured    not measured
 * hot         resize_conv_region
 * source      mma.sync m16n8k16 fragments: PTX ISA, section 9.7.14
 * arch        80 86 89 90 100 120
 * specialise  real = float16 bfloat16; TAPS = 1 2 4
 */
#include "conv_multiply.cuh"
#include "resize_conv.cuh"
#include "scalar.cuh"

constexpr int HIGH = 8, WIDE = 16;  // pixels of a tile; 8 warps as 4 (two rows each) x 2 (channels)
constexpr int BM = HIGH * WIDE;
constexpr int BN = 64;              // channels of a tile
constexpr int BK = 32;              // source channels of a step: 64 bytes a pixel, in four pieces of 16
constexpr int TILES_N = BN / 2 / 8;
constexpr int FOUND_PITCH = BM + 2;

using piece8 = vec<real, 8>;

// Piece c of a row, moved so that the eight rows that ldmatrix reads together lie in different banks.
__device__ __forceinline__ int swizzled(int row, int c) { return row * BK + (c ^ (row >> 1 & 3)) * 8; }

extern "C" __global__ void __launch_bounds__(256, 2) resize_conv_region(
    const real* __restrict__ source,   // [images, source_rows, source_cols, pitch]
    const real* __restrict__ packed,   // [kernel_rows * kernel_cols, channels, pitch]
    const real* __restrict__ bias,     // [channels] or null
    real* __restrict__ result,         // [images, channels, rows, cols], strided
    const int* __restrict__ index, const float* __restrict__ weight,  // see Samples
    int64_t result_n, int64_t result_c, int64_t result_h, int64_t result_w, int images, int pitch, int channels,
    int source_rows, int source_cols, int inner_rows, int inner_cols, int rows, int cols, int kernel_rows,
    int kernel_cols, int top, int left, int dilation_rows, int dilation_cols) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int across = WIDE + (kernel_cols - 1) * dilation_cols;
  const int pixels = (HIGH + (kernel_rows - 1) * dilation_rows) * across;
  real* region = (real*)shared;  // [pixels][BK]; afterwards the results, [BN][FOUND_PITCH]
  real* weights = region + max(pixels * BK, BN * FOUND_PITCH);  // [2][BN][BK]
  __shared__ Place places[BM];
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int channel_tiles = (channels + BN - 1) / BN, tile_cols = (cols + WIDE - 1) / WIDE;
  const int channel_base = blockIdx.x % channel_tiles * BN, tile = (int)(blockIdx.x / channel_tiles);
  const int row0 = tile / tile_cols * HIGH, col0 = tile % tile_cols * WIDE;
  const Samples samples = Samples::of(index, weight, inner_rows);
  if (thread < BM) {
    const int row = row0 + thread / WIDE, col = col0 + thread % WIDE;
    places[thread] = {row, col, row < rows && col < cols};
  }
  const int part = thread & 3, line = thread >> 2;
  const int taps = kernel_rows * kernel_cols;
  const int warp_row = (warp & 3) * 2, warp_col = (warp >> 2) * (BN / 2);

  for (int64_t image = blockIdx.y; image < images; image += gridDim.y) {
    const real* from_image = source + image * source_rows * source_cols * pitch;
    // Eight channels of an element of the enlarged image.
    auto sampled = [&](int row, int col, int at) {
      float sum[8] = {};
      for (int a = 0; a < TAPS; ++a) {
        const float down = TAPS == 1 ? 1.f : samples.row_weight[row * TAPS + a];
        if (down == 0.f) continue;
        const real* below = from_image + (int64_t)samples.row_index[row * TAPS + a] * source_cols * pitch + at;
#pragma unroll
        for (int b = 0; b < TAPS; ++b) {
          const float w = TAPS == 1 ? 1.f : down * samples.col_weight[col * TAPS + b];
          if (w == 0.f) continue;
          const piece8 v = *(const piece8*)(below + (int64_t)samples.col_index[col * TAPS + b] * pitch);
#pragma unroll
          for (int e = 0; e < 8; ++e) sum[e] += w * load(v.v[e]);
        }
      }
      piece8 rounded;
#pragma unroll
      for (int e = 0; e < 8; ++e) store(&rounded.v[e], sum[e]);
      return rounded;
    };
    auto copy_weights = [&](int tap, int channel) {
      const int at = channel + part * 8, c = channel_base + line;
      const bool ok = at < pitch && c < channels;
      const real* from = packed + ((int64_t)tap * channels + c) * pitch + at;
      cp_async16(&weights[(tap & 1) * BN * BK + swizzled(line, part)], ok ? from : packed, ok);
      cp_async_commit();
    };

    float sum[2][TILES_N][4] = {};
    for (int channel = 0; channel < pitch; channel += BK) {
      __syncthreads();  // nobody reads the region or the weights of the channels before
      copy_weights(0, channel);
      const int at = channel + part * 8;
      for (int p = line; p < pixels; p += 64) {
        const int row = row0 - top + p / across, col = col0 - left + p % across;
        const bool ok = at < pitch && row >= 0 && row < inner_rows && col >= 0 && col < inner_cols;
        *(piece8*)&region[swizzled(p, part)] = ok ? sampled(row, col, at) : piece8{};
      }
      for (int tap = 0; tap < taps; ++tap) {
        cp_async_wait<0>();
        __syncthreads();  // this tap's weights (and the region) are there, and those of the tap before are done with
        if (tap + 1 < taps) copy_weights(tap + 1, channel);
        const real* columns = weights + (tap & 1) * BN * BK;
        const int shift = tap / kernel_cols * dilation_rows * across + tap % kernel_cols * dilation_cols;
#pragma unroll
        for (int k = 0; k < BK / 16; ++k) {
          unsigned a[2][4], b[TILES_N][2];
#pragma unroll
          for (int e = 0; e < 2; ++e)
            ldmatrix_x4(a[e], &region[swizzled((warp_row + e) * across + (lane & 15) + shift, 2 * k + (lane >> 4))]);
#pragma unroll
          for (int j = 0; j < TILES_N; j += 2) {
            unsigned pair[4];
            const int c = warp_col + 8 * j + (lane & 7) + (lane >> 4) * 8;
            ldmatrix_x4(pair, &columns[swizzled(c, 2 * k + (lane >> 3 & 1))]);
            b[j][0] = pair[0];
            b[j][1] = pair[1];
            b[j + 1][0] = pair[2];
            b[j + 1][1] = pair[3];
          }
#pragma unroll
          for (int e = 0; e < 2; ++e)
#pragma unroll
            for (int j = 0; j < TILES_N; ++j) multiply(sum[e][j], a[e], b[j], real{});
        }
      }
    }
    __syncthreads();  // the results take the region's place
#pragma unroll
    for (int e = 0; e < 2; ++e)
#pragma unroll
      for (int j = 0; j < TILES_N; ++j)
#pragma unroll
        for (int f = 0; f < 4; ++f) {
          const int place = (warp_row + e) * WIDE + (lane >> 2) + f / 2 * 8;
          const int c = warp_col + 8 * j + (lane & 3) * 2 + f % 2;
          const bool biased = bias && channel_base + c < channels;
          store(&region[c * FOUND_PITCH + place], sum[e][j][f] + (biased ? load(bias[channel_base + c]) : 0.f));
        }
    __syncthreads();
    const Job all{0, 0, 0, 0, 0, 1, 0, 1};
    real* to = result + image * result_n + channel_base * result_c;
    flush<BM, BN>(region, FOUND_PITCH, places, all, to, channels - channel_base, result_c, result_h, result_w);
  }
}
