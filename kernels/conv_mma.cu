/* conv_mma.cu: 2-D convolution as an implicit matrix product on the tensor cores, 16-bit inputs, float32 sums.
 *
 * formula     as conv.cu; ADJOINT: the transpose with respect to x
 * layout      source channels last, [image][row][col][group][source_pitch], pitch a multiple of 8, zeros past the channels;
 *             weights [group][tap][channel][source_pitch]; result dense, by rows or (CHANNELS_LAST) channels last
 * launch      ceil(pixels/128) * ceil(channels/BN) * groups blocks of 256 threads, STAGES * (128 + BN) * 64 bytes shared;
 *             ADJOINT: pixels in strides' phases
 * cost        2 N Ho Wo Cout Cin/groups kh kw flop less the taps that lie in the padding of a whole tile; source, weights
 *             and result once from memory; a block reads (128 + BN) * 64 bytes per 128 * BN * 32 multiply-adds
 * order       taps in order, channels in order within a tap, 16 at a time inside the instruction: run to run
 * measured    not measured
 * hot         conv2d_mma
 * source      mma.sync m16n8k16 fragments: PTX ISA, section 9.7.14; multistage pipeline: CUTLASS 2.x, "Efficient GEMM"
 * arch        80 86 89 90 100 120
 * specialise  real = float16 bfloat16; ADJOINT = 0 1; BN = 64 128; STAGES = 3 4; CHANNELS_LAST = 0 1
 */
#include "conv_geometry.cuh"
#include "conv_multiply.cuh"
#include "scalar.cuh"

constexpr int BM = 128;             // pixels of a tile
constexpr int BK = 32;              // source channels of a step: 64 bytes a row, in four pieces of 16
constexpr int WARP_COLS = BN / 2;   // 8 warps as 4 (pixels) x 2 (channels); each owns 32 x WARP_COLS results
constexpr int TILES_N = WARP_COLS / 8;
constexpr int STAGE = (BM + BN) * BK;  // elements

// Piece c of a row, moved so that the eight rows that ldmatrix reads together lie in different banks.
__device__ __forceinline__ int swizzled(int row, int c) { return row * BK + (c ^ (row >> 1 & 3)) * 8; }

extern "C" __global__ void __launch_bounds__(256, 2) conv2d_mma(
    const real* __restrict__ source, const real* __restrict__ packed,
    const real* __restrict__ bias,  // [groups * channels] or null
    real* __restrict__ result,      // [images, groups * channels, rows, cols]
    int images, int groups, int source_pitch, int channels, int source_rows, int source_cols, int rows, int cols,
    int kernel_rows, int kernel_cols, int stride_rows, int stride_cols, int pad_top, int pad_left,
    int dilation_rows, int dilation_cols, int tap_step_rows, int tap_step_cols, int inverse_rows, int inverse_cols,
    double inverse_plane) {
  extern __shared__ __align__(16) unsigned char shared[];
  real* stages = (real*)shared;  // STAGES x { pixels [BM][BK], weights [BN][BK] }
  __shared__ Pixel table[BM];
  const Geometry geometry{kernel_cols, stride_rows,   stride_cols,   pad_top,    pad_left,
                          dilation_rows, dilation_cols, source_rows, source_cols};
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int channel_tiles = (channels + BN - 1) / BN;
  // Blocks go over channels, then over phases, so that those that write between each other's pixels run together.
  const int down = ADJOINT ? min(stride_rows, rows) : 1, across = ADJOINT ? min(stride_cols, cols) : 1;
  const Pixels all{images, (rows + down - 1) / down, (cols + across - 1) / across, inverse_plane};
  const unsigned pixel_tiles = (unsigned)((all.count() + BM - 1) / BM);
  unsigned block = blockIdx.x;
  const int channel_base = block % channel_tiles * BN;
  block /= channel_tiles;
  const unsigned place = block % (down * across);
  block /= down * across;
  const int64_t pixel_base = (int64_t)(block % pixel_tiles) * BM;
  const int group = (int)(block / pixel_tiles);
  const Phase phase =
      ADJOINT ? Phase::transposed(geometry, kernel_rows, {tap_step_rows, inverse_rows}, {tap_step_cols, inverse_cols},
                                  place / across, place % across)
              : Phase::whole(kernel_rows, kernel_cols);
  const int taps = phase.taps();
  if (thread < BM) table[thread] = all.at(pixel_base + thread, phase, rows, cols);
  __syncthreads();

  // A thread copies piece `piece` of rows `line` and `line + 64` of each operand.
  const int piece = thread & 3, line = thread >> 2;
  const int64_t pixel_pitch = (int64_t)groups * source_pitch;
  const real* weights = packed + (int64_t)group * kernel_rows * kernel_cols * channels * source_pitch;
  const real* from[2] = {source, source};
  bool valid[2] = {false, false};
  int weight_tap = 0;
  auto locate = [&](int index) {
    const Tap tap = phase.tap(index);
    weight_tap = tap.row * kernel_cols + tap.col;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Pixel p = table[line + 64 * i];
      int row = 0, col = 0;
      valid[i] = p.inside && geometry.source<ADJOINT>(p.row, p.col, tap, row, col);
      const int64_t at = ((int64_t)p.image * source_rows + row) * source_cols + col;
      from[i] = source + (valid[i] ? at * pixel_pitch + (int64_t)group * source_pitch : 0);
    }
    return valid[0] || valid[1];
  };
  const uint64_t active = active_taps(taps, locate);

  // The next step to copy: a tap and the first of its 32 source channels.
  int tap = next_tap(-1, taps, active), channel = 0, slot = 0;
  if (tap < taps) locate(tap);
  auto copy_step = [&]() {
    if (tap < taps) {
      real* pixels = stages + slot * STAGE;
      const int at = channel + piece * 8;
      const bool there = at < source_pitch;
#pragma unroll
      for (int i = 0; i < 2; ++i)
        cp_async16(&pixels[swizzled(line + 64 * i, piece)], there ? from[i] + at : source, there && valid[i]);
      const real* row = weights + (int64_t)weight_tap * channels * source_pitch + at;
#pragma unroll
      for (int i = 0; i < BN / 64; ++i) {
        const int c = channel_base + line + 64 * i;
        const bool ok = there && c < channels;
        cp_async16(&pixels[BM * BK + swizzled(line + 64 * i, piece)], ok ? row + (int64_t)c * source_pitch : packed, ok);
      }
      channel += BK;
      if (channel >= source_pitch) {
        channel = 0;
        tap = next_tap(tap, taps, active);
        if (tap < taps) locate(tap);
      }
    }
    slot = slot + 1 == STAGES ? 0 : slot + 1;
    cp_async_commit();
  };

  float sum[2][TILES_N][4] = {};
  const int warp_row = (warp & 3) * 32, warp_col = (warp >> 2) * WARP_COLS;
  int steps = 0;
  for (int k = next_tap(-1, taps, active); k < taps; k = next_tap(k, taps, active)) ++steps;
  steps *= (source_pitch + BK - 1) / BK;
#pragma unroll
  for (int i = 0; i < STAGES - 1; ++i) copy_step();
  int current = 0;
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();  // this step has landed for every thread, and everyone is done with the slot that copy_step refills
    copy_step();
    const real* pixels = stages + current * STAGE;
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
    current = current + 1 == STAGES ? 0 : current + 1;
  }

  // The tile goes through shared memory, so that what leaves is contiguous: [pixel][channel] or [channel][pixel].
  cp_async_wait<0>();
  __syncthreads();
  constexpr int LINES = CHANNELS_LAST ? BM : BN, LENGTH = CHANNELS_LAST ? BN : BM, PITCH = LENGTH + 8;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < TILES_N; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int p = warp_row + 16 * i + (lane >> 2) + e / 2 * 8, c = warp_col + 8 * j + (lane & 3) * 2 + e % 2;
        const bool biased = bias && channel_base + c < channels;
        const float value = sum[i][j][e] + (biased ? load(bias[group * channels + channel_base + c]) : 0.f);
        store(&stages[CHANNELS_LAST ? p * PITCH + c : c * PITCH + p], value);
      }
  __syncthreads();
  const int64_t all_channels = (int64_t)groups * channels;
  if constexpr (CHANNELS_LAST) {
    const bool wide = channels % 8 == 0;  // 8 channels then lie within the group, and start at a multiple of 16 bytes
    for (int v = thread; v < LINES * LENGTH / 8; v += 256) {
      const int p = v / (LENGTH / 8), c = v % (LENGTH / 8) * 8;
      if (!table[p].inside) continue;
      const int64_t at = ((int64_t)table[p].image * rows + table[p].row) * cols + table[p].col;
      real* to = result + at * all_channels + (int64_t)group * channels + channel_base + c;
      if (wide) {
        if (channel_base + c < channels) *(vec<real, 8>*)to = *(const vec<real, 8>*)&stages[p * PITCH + c];
      } else {
        for (int e = 0; e < 8 && channel_base + c + e < channels; ++e) to[e] = stages[p * PITCH + c + e];
      }
    }
  } else {
    const int64_t plane = (int64_t)rows * cols;
    const bool wide = plane % 8 == 0 && down * across == 1;  // 8 pixels then lie within an image, one after another
    for (int v = thread; v < LINES * LENGTH / 8; v += 256) {
      const int c = v / (LENGTH / 8), p = v % (LENGTH / 8) * 8;
      if (channel_base + c >= channels) continue;
      auto at = [&](int q) {
        const Pixel& x = table[q];
        return result + ((int64_t)x.image * all_channels + (int64_t)group * channels + channel_base + c) * plane
               + (int64_t)x.row * cols + x.col;
      };
      if (wide) {
        if (table[p].inside) *(vec<real, 8>*)at(p) = *(const vec<real, 8>*)&stages[c * PITCH + p];
      } else {
        for (int e = 0; e < 8; ++e)
          if (table[p + e].inside) *at(p + e) = stages[c * PITCH + p + e];
      }
    }
  }
}
