/* conv.cu: 2-D convolution as an implicit matrix product on the ordinary cores, exact in the input's precision.
 *
 * formula     y[n,o,p,q] = act(a[o] sum_{c,r,s} w[o,c,r,s] x[n,c, p*stride - pad + r*dilation, q*stride - pad + s*dilation]
 *             + b[o] + e[n,o]); ADJOINT: with the transpose of the sum with respect to x
 * layout      any strides; LAYOUT 1: result dense by rows, a plane a multiple of 4 (wide stores along pixels);
 *             LAYOUT 2: channels last, channels of a group a multiple of 4 (wide loads and stores along channels);
 *             weights packed [group][tap][source channel][result channel] by conv_pack.cu; WIDE: result in the sums' type
 * launch      ceil(pixels/TILE) * ceil(channels/TILE) * groups blocks of 256 threads; ADJOINT: pixels in strides' phases;
 *             PLAN 1: pixels in nine rectangles of one tap class each, ceil(pixels/TILE) of each of them
 * cost        2 N Ho Wo Cout Cin/groups kh kw flop less the taps that lie in the padding of a whole tile (PLAN 1: of all
 *             padding); bytes at least x + w + y once; each block reads TILE*(1 + 1) values per TILE*TILE multiply-adds
 * order       taps in order, channels in order within a tap: the same sum on every run and on every GPU
 * measured    not measured
 * hot         conv2d_gather
 * source      implicit GEMM: Chetlur et al. 2014 (cuDNN), section 3; register tiling: Volkov & Demmel 2008
 * arch        75 80 86 89 90 100 120
 * specialise  real = float16 bfloat16; ADJOINT = 0 1; LAYOUT = 0 1 2; TILE = 64 128; PLAN = 0; WIDE = 0
 * specialise  real = float16 bfloat16; ADJOINT = 1; LAYOUT = 0 2; TILE = 64 128; PLAN = 0; WIDE = 1
 * specialise  real = float32; ADJOINT = 0 1; LAYOUT = 0 2; TILE = 64 128; PLAN = 0; WIDE = 0
 * specialise  real = float16 bfloat16 float32; ADJOINT = 0 1; LAYOUT = 0 2; TILE = 64 128; PLAN = 1; WIDE = 0
 * specialise  real = float16 bfloat16 float32; ADJOINT = 0; LAYOUT = 0 2; TILE = 64; PLAN = 2; WIDE = 0
 * specialise  real = float16 float32; ADJOINT = 0; LAYOUT = 2; TILE = 64 128; PLAN = 3; WIDE = 0
 * specialise  real = float64; ADJOINT = 0 1; LAYOUT = 0 2; TILE = 64; PLAN = 0 1; WIDE = 0
 * specialise  real = float64; ADJOINT = 0; LAYOUT = 0 2; TILE = 64; PLAN = 2; WIDE = 0
 * specialise  real = float64; ADJOINT = 0; LAYOUT = 2; TILE = 64; PLAN = 3; WIDE = 0
 */
#include "conv_epilogue.cuh"
#include "conv_geometry.cuh"
#include "scalar.cuh"

using accum = accumulate<real>::type;
using out = result_type<real, WIDE>::type;

constexpr int THREADS = 256;
constexpr int BK = 8;                        // source channels of one step
constexpr int PER_THREAD = TILE * BK / THREADS;  // values of each operand that a thread loads in a step
constexpr int HALVES = TILE / 64;            // a thread owns 4 x 4 results in each 64 x 64 quarter of the tile

// 16-bit results are packed for wide stores; wide ones would need the sums in aligned registers, and spill.
constexpr int RUN = sizeof(out) == 2 ? LAYOUT : 0;

using quad = vec<accum, 4>;
using piece = vec<real, PER_THREAD>;

// A tile of TILE destination channels x TILE pixels. Steps go over taps (outer) and source channels (inner), so that a
// pixel's address and validity are found once per tap. Values of the next step travel to registers during this one.
extern "C" __global__ void __launch_bounds__(256, 2) conv2d_gather(
    const real* __restrict__ source,  // [images, groups * source_channels, source_rows, source_cols], strided
    const real* __restrict__ packed,  // [groups, taps, source_channels, packed_pitch]
    const real* __restrict__ scale, const real* __restrict__ bias, const real* __restrict__ image_bias,  // see Epilogue
    out* __restrict__ result,         // [images, groups * channels, rows, cols], strided
    int64_t source_n, int64_t source_c, int64_t source_h, int64_t source_w,
    int64_t result_n, int64_t result_c, int64_t result_h, int64_t result_w,
    int activation, int images, int groups, int source_channels, int channels, int packed_pitch, int source_rows, int source_cols, int rows,
    int cols, int kernel_rows, int kernel_cols, int stride_rows, int stride_cols, int pad_top, int pad_left,
    int dilation_rows, int dilation_cols, int tap_step_rows, int tap_step_cols, int inverse_rows, int inverse_cols,
    int border, int row_first, int row_second, int col_first, int col_second, double inverse_plane) {
  __shared__ __align__(16) accum weights[2][BK][TILE];
  __shared__ __align__(16) accum pixels[2][BK][TILE];
  __shared__ Pixel table[TILE];  // decoded once, kept out of the registers that the sums need
  const Geometry geometry{kernel_cols,   stride_rows,   stride_cols, pad_top,     pad_left,
                          dilation_rows, dilation_cols, source_rows, source_cols, border};
  const Part<ADJOINT, PLAN, TILE, TILE> part(
      blockIdx.x, geometry, images, groups, channels, rows, cols, kernel_rows, {tap_step_rows, inverse_rows},
      {tap_step_cols, inverse_cols}, {row_first, row_second, rows}, {col_first, col_second, cols}, inverse_plane);
  const int thread = threadIdx.x, channel_base = part.channel_base, group = part.group;
  const int taps = PLAN == POINTWISE ? 1 : part.phase.taps();

  // What this thread loads in each step: PER_THREAD channels of one pixel, and as many weights of one channel.
  if (thread < TILE) table[thread] = part.at(thread);
  __syncthreads();
  const int mine_channel = thread / TILE * PER_THREAD;
  const int weight_channel = thread * PER_THREAD / TILE, weight_column = thread * PER_THREAD % TILE;
  const int all_taps = kernel_rows * kernel_cols;

  const real* from = source;  // channel 0 of the group at the pixel that this thread's tap reads
  bool valid = false;
  const real* tap_weights = packed + (int64_t)group * all_taps * source_channels * packed_pitch;
  auto locate = [&](int index) {
    if constexpr (PLAN == POINTWISE) {
      const int64_t mine = part.pixel_base + thread % TILE;
      valid = mine < part.pixels.count();
      if (valid) from = source + mine * source_w + (int64_t)group * source_channels;
    } else {
      const Pixel mine = table[thread % TILE];
      const Tap tap = part.phase.tap(index);
      int row = 0, col = 0;
      valid = mine.inside && geometry.source<ADJOINT, PLAN == BORDERED>(mine.row, mine.col, tap, row, col);
      tap_weights = packed + ((int64_t)group * all_taps + tap.row * kernel_cols + tap.col) * source_channels * packed_pitch;
      if (valid)
        from = source + mine.image * source_n + (int64_t)group * source_channels * source_c + row * source_h
               + col * source_w;
    }
    return valid;
  };
  const uint64_t active = PLAN == POINTWISE ? 1 : active_taps(taps, locate);

  piece next_pixels, next_weights;
  auto fetch = [&](int step) {
    const int first = step + mine_channel;
    if constexpr (LAYOUT == 2) {
      next_pixels = valid && first < source_channels ? *(const piece*)(from + first) : piece{};
    } else {
#pragma unroll
      for (int i = 0; i < PER_THREAD; ++i)
        next_pixels.v[i] = valid && first + i < source_channels ? from[(first + i) * source_c] : real{};
    }
    const int k = step + weight_channel, column = channel_base + weight_column;
    const bool there = k < source_channels && column < packed_pitch;
    next_weights = there ? *(const piece*)(tap_weights + (int64_t)k * packed_pitch + column) : piece{};
  };
  auto stash = [&](int buffer) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
      pixels[buffer][mine_channel + i][thread % TILE] = load(next_pixels.v[i]);
      weights[buffer][weight_channel][weight_column + i] = load(next_weights.v[i]);
    }
  };

  const int row4 = thread / 16 * 4, col4 = thread % 16 * 4;
  auto channel_of = [&](int i) { return channel_base + i / 4 * 64 + row4 + i % 4; };
  accum sum[HALVES * 4][HALVES * 4] = {};
  int tap = next_tap(-1, taps, active), step = 0, buffer = 0;
  if (tap < taps) {
    locate(tap);
    fetch(0);
  }
  while (tap < taps) {
    stash(buffer);
    __syncthreads();
    step += BK;
    if (step >= source_channels) {
      step = 0;
      tap = next_tap(tap, taps, active);
      if (tap < taps) locate(tap);
    }
    if (tap < taps) fetch(step);
#pragma unroll
    for (int k = 0; k < BK; ++k) {
      quad a[HALVES], b[HALVES];
#pragma unroll
      for (int h = 0; h < HALVES; ++h) {
        a[h] = *(const quad*)&weights[buffer][k][h * 64 + row4];
        b[h] = *(const quad*)&pixels[buffer][k][h * 64 + col4];
      }
#pragma unroll
      for (int i = 0; i < HALVES * 4; ++i)
#pragma unroll
        for (int j = 0; j < HALVES * 4; ++j) sum[i][j] += a[i / 4].v[i % 4] * b[j / 4].v[j % 4];
    }
    buffer ^= 1;
  }

  const Epilogue<real> epilogue{scale, bias, image_bias, groups * channels, activation};
#pragma unroll
  for (int i = 0; i < HALVES * 4; ++i)
    if (channel_of(i) < channels) {
#pragma unroll
      for (int j = 0; j < HALVES * 4; ++j) sum[i][j] = epilogue.affine(sum[i][j], group * channels + channel_of(i));
    }

  // 16-bit results leave in runs of 4, along pixels (LAYOUT 1) or along channels (LAYOUT 2); others one by one.
  const int64_t step_c = LAYOUT == 2 ? 1 : result_c;
  out* plane = result + group * channels * step_c;
#pragma unroll
  for (int j = 0; j < HALVES * 4; j += RUN == 1 ? 4 : 1) {
    const Pixel p = table[j / 4 * 64 + col4 + j % 4];
    if (!p.inside) continue;
    out* place = plane + p.image * result_n + p.row * result_h + p.col * result_w;
#pragma unroll
    for (int i = 0; i < HALVES * 4; i += RUN == 2 ? 4 : 1) {
      if (channel_of(i) >= channels) continue;
      out* to = place + channel_of(i) * step_c;
      auto finished = [&](int a, int b) {  // a run along pixels lies in one image
        return epilogue.rest(sum[a][b], p.image, group * channels + channel_of(a));
      };
      if constexpr (RUN == 0) {
        store(to, finished(i, j));
      } else {
        vec<out, 4> run;
#pragma unroll
        for (int e = 0; e < 4; ++e) store(&run.v[e], RUN == 1 ? finished(i, j + e) : finished(i + e, j));
        *(vec<out, 4>*)to = run;
      }
    }
  }
}
