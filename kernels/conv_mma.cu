/* conv_mma.cu: 2-D convolution as an implicit matrix product on the tensor cores, float32 sums.
 *
 * formula     as conv.cu; ADJOINT: the transpose with respect to x. float32 inputs are rounded to TF32 (10 bits of mantissa,
 *             to nearest): the error of a sum is at most 2^-10 of the sum of its absolute terms
 * layout      source channels last, [image][row][col][group][source_pitch], pitch a multiple of 16 bytes, zeros past the
 *             channels; weights [group][tap][channel][source_pitch], float32 ones rounded to TF32; result by rows or
 *             (CHANNELS_LAST) channels last, of result_channels channels, of which the first given are these; WIDE: float32
 * launch      ceil(pixels/128) * ceil(channels/BN) * groups blocks of 256 threads, STAGES * (128 + BN) * 64 bytes shared;
 *             ADJOINT: pixels in strides' phases; PLAN 1: in nine rectangles of one tap class each, ceil(pixels/128) of each
 * cost        2 N Ho Wo Cout Cin/groups kh kw flop less the taps that lie in the padding of a whole tile (PLAN 1: of all
 *             padding); source, weights and result once from memory; a block reads (128 + BN) * 64 bytes per 128 * BN * 32
 *             multiply-adds (float32: 16)
 * order       taps in order, channels in order within a tap, 16 at a time inside the instruction (float32: 8): run to run
 * measured    not measured
 * hot         conv2d_mma
 * source      mma.sync m16n8k16 and m16n8k8 fragments: PTX ISA, section 9.7.14; multistage pipeline: CUTLASS 2.x, "Efficient
 *             GEMM"
 * arch        80 86 89 90 100 120
 * specialise  real = float16 bfloat16 float32; ADJOINT = 0 1; BN = 64 128; STAGES = 3 4; CHANNELS_LAST = 0 1; PLAN = 0 1; WIDE = 0
 * specialise  real = float16 bfloat16 float32; ADJOINT = 0; BN = 64 128; STAGES = 3 4; CHANNELS_LAST = 0 1; PLAN = 2 3; WIDE = 0
 * specialise  real = float16 bfloat16; ADJOINT = 1; BN = 64 128; STAGES = 3 4; CHANNELS_LAST = 0 1; PLAN = 0; WIDE = 1
 */
#include "conv_epilogue.cuh"
#include "conv_geometry.cuh"
#include "conv_multiply.cuh"
#include "scalar.cuh"

constexpr int BM = 128;             // pixels of a tile
constexpr int PIECE = 16 / sizeof(real);  // source channels of 16 bytes
constexpr int BK = 4 * PIECE;       // source channels of a step: 64 bytes a row, in four pieces
constexpr int WARP_COLS = BN / 2;   // 8 warps as 4 (pixels) x 2 (channels); each owns 32 x WARP_COLS results
constexpr int TILES_N = WARP_COLS / 8;
constexpr int STAGE = (BM + BN) * BK;  // elements
constexpr bool TF32 = sizeof(real) == 4, DIRECT = TF32 || WIDE;  // 4-byte results leave from the registers
using out = result_type<real, DIRECT>::type;

// Piece c of a row, moved so that the eight rows that ldmatrix reads together lie in different banks.
__device__ __forceinline__ int swizzled(int row, int c) { return row * BK + (c ^ (row >> 1 & 3)) * PIECE; }

extern "C" __global__ void __launch_bounds__(256, 2) conv2d_mma(
    const real* __restrict__ source, const real* __restrict__ packed,
    const real* __restrict__ scale, const real* __restrict__ bias, const real* __restrict__ image_bias,  // see Epilogue
    out* __restrict__ result,  // [images, groups * channels, rows, cols] of result_channels
    int activation, int images, int groups, int source_pitch, int channels, int result_channels, int source_rows,
    int source_cols, int rows, int cols, int kernel_rows, int kernel_cols, int stride_rows, int stride_cols, int pad_top,
    int pad_left, int dilation_rows, int dilation_cols, int tap_step_rows, int tap_step_cols, int inverse_rows,
    int inverse_cols, int border, int row_first, int row_second, int col_first, int col_second, double inverse_plane) {
  extern __shared__ __align__(16) unsigned char shared[];
  real* stages = (real*)shared;  // STAGES x { pixels [BM][BK], weights [BN][BK] }
  __shared__ Pixel table[BM];
  const Geometry geometry{kernel_cols,   stride_rows,   stride_cols, pad_top,     pad_left,
                          dilation_rows, dilation_cols, source_rows, source_cols, border};
  const Part<ADJOINT, PLAN, BM, BN> part(
      blockIdx.x, geometry, images, groups, channels, rows, cols, kernel_rows, {tap_step_rows, inverse_rows},
      {tap_step_cols, inverse_cols}, {row_first, row_second, rows}, {col_first, col_second, cols}, inverse_plane);
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int channel_base = part.channel_base, group = part.group;
  const int taps = PLAN == POINTWISE ? 1 : part.phase.taps();
  if constexpr (PLAN != POINTWISE) {
    if (thread < BM) table[thread] = part.at(thread);
    __syncthreads();
  }

  // A thread copies piece `piece` of rows `line` and `line + 64` of each operand.
  const int piece = thread & 3, line = thread >> 2;
  const int64_t pixel_pitch = (int64_t)groups * source_pitch;
  const real* weights = packed + (int64_t)group * kernel_rows * kernel_cols * channels * source_pitch;
  const real* from[2] = {source, source};
  bool valid[2] = {false, false};
  int weight_tap = 0;
  auto locate = [&](int index) {
    const Tap tap = part.phase.tap(index);
    weight_tap = PLAN == POINTWISE ? 0 : tap.row * kernel_cols + tap.col;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int64_t at = part.pixel_base + line + 64 * i;
      if constexpr (PLAN == POINTWISE) {
        valid[i] = at < part.pixels.count();
      } else {
        const Pixel p = table[line + 64 * i];
        int row = 0, col = 0;
        valid[i] = p.inside && geometry.source<ADJOINT, PLAN == BORDERED>(p.row, p.col, tap, row, col);
        at = ((int64_t)p.image * source_rows + row) * source_cols + col;
      }
      from[i] = source + (valid[i] ? at * pixel_pitch + (int64_t)group * source_pitch : 0);
    }
    return valid[0] || valid[1];
  };
  const uint64_t active = PLAN == POINTWISE ? 1 : active_taps(taps, locate);

  // The next step to copy: a tap and the first of its 32 source channels.
  int tap = next_tap(-1, taps, active), channel = 0, slot = 0;
  if (tap < taps) locate(tap);
  auto copy_step = [&]() {
    if (tap < taps) {
      real* pixels = stages + slot * STAGE;
      const int at = channel + piece * PIECE;
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
    for (int k = 0; k < 2; ++k) {  // of two pieces, as an instruction takes them
      unsigned a[2][4], b[TILES_N][2];
#pragma unroll
      for (int i = 0; i < 2; ++i)
        ldmatrix_x4(a[i], &pixels[swizzled(warp_row + 16 * i + (lane & 15), 2 * k + (lane >> 4))]);
      if constexpr (TF32) {
#pragma unroll
        for (int i = 0; i < 8; ++i) a[i / 4][i % 4] = __float_as_uint(f32_to_tf32(__uint_as_float(a[i / 4][i % 4])));
      }
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

  cp_async_wait<0>();
  if constexpr (PLAN == POINTWISE) {
    if (thread < BM) table[thread] = part.at(thread);  // results alone need to know their places
  }
  __syncthreads();
  const int64_t plane = (int64_t)rows * cols;
  const Epilogue<real> epilogue{scale, bias, image_bias, groups * channels, activation};
  auto place = [&](const Pixel& p, int c) {
    const int64_t within = (int64_t)p.row * cols + p.col;
    const int64_t all = group * channels + channel_base + c;
    return result + (CHANNELS_LAST ? (p.image * plane + within) * result_channels + all
                                   : (p.image * (int64_t)result_channels + all) * plane + within);
  };
  if constexpr (DIRECT) {
    // Eight lanes of a column, or four pairs of a row, fill a sector of 32 bytes.
    const bool pairs = CHANNELS_LAST && channels % 2 == 0 && result_channels % 2 == 0 && ((size_t)result & 7) == 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Pixel p = table[warp_row + 8 * i + (lane >> 2)];
      if (!p.inside) continue;
#pragma unroll
      for (int j = 0; j < TILES_N; ++j) {
        const int c = warp_col + 8 * j + (lane & 3) * 2, first = group * channels + channel_base + c;
        vec<float, 2> two;
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if (channel_base + c + e >= channels) continue;
          two.v[e] = epilogue.rest(epilogue.affine(sum[i / 2][j][i % 2 * 2 + e], first + e), p.image, first + e);
          if (!pairs) store(place(p, c + e), two.v[e]);
        }
        if (pairs && channel_base + c < channels) *(vec<float, 2>*)place(p, c) = two;
      }
    }
    return;
  }

  // The tile goes through shared memory, so that what leaves is contiguous: [pixel][channel] or [channel][pixel].
  constexpr int LINES = CHANNELS_LAST ? BM : BN, LENGTH = CHANNELS_LAST ? BN : BM, PITCH = LENGTH + 8;
#pragma unroll
  for (int j = 0; j < TILES_N; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int c = warp_col + 8 * j + (lane & 3) * 2 + e, channel = group * channels + channel_base + c;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int p = warp_row + 8 * i + (lane >> 2);
        float value = sum[i / 2][j][i % 2 * 2 + e];
        if (channel_base + c < channels)
          value = epilogue.rest(epilogue.affine(value, channel), image_bias ? table[p].image : 0, channel);
        store(&stages[CHANNELS_LAST ? p * PITCH + c : c * PITCH + p], value);
      }
    }
  __syncthreads();
  // Eight channels, or eight pixels of an image, lie one after another where all their numbers are multiples of 8.
  const bool aligned = ((size_t)result & 15) == 0;
  if (CHANNELS_LAST ? aligned && channels % 8 == 0 && result_channels % 8 == 0
                    : aligned && plane % 8 == 0 && PLAN != BY_CLASS && !(ADJOINT && stride_rows * stride_cols > 1)) {
    for (int v = thread; v < LINES * LENGTH / 8; v += 256) {
      const int major = v / (LENGTH / 8), minor = v % (LENGTH / 8) * 8;
      const Pixel p = table[CHANNELS_LAST ? major : minor];
      const int c = CHANNELS_LAST ? minor : major;
      if (p.inside && channel_base + c < channels)
        *(vec<real, 8>*)place(p, c) = *(const vec<real, 8>*)&stages[major * PITCH + minor];
    }
  } else {
    for (int v = thread; v < LINES * LENGTH; v += 256) {
      const int major = v / LENGTH, minor = v % LENGTH;
      const Pixel p = table[CHANNELS_LAST ? major : minor];
      const int c = CHANNELS_LAST ? minor : major;
      if (p.inside && channel_base + c < channels) *(real*)place(p, c) = stages[major * PITCH + minor];
    }
  }
}
