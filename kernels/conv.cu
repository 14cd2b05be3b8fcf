/* conv.cu: 2-D convolution as an implicit matrix product on the ordinary cores, exact in the input's precision.
 *
 * formula     y[n,o,p,q] = b[o] + sum_{c,r,s} w[o,c,r,s] x[n,c, p*stride - pad + r*dilation, q*stride - pad + s*dilation]
 *             ADJOINT: the transpose with respect to x
 * layout      any strides; LAYOUT 1: result dense by rows, a plane a multiple of 4 (wide stores along pixels);
 *             LAYOUT 2: channels last, channels of a group a multiple of 4 (wide loads and stores along channels);
 *             weights packed [group][tap][source channel][result channel] by conv_pack.cu
 * launch      ceil(pixels/TILE) * ceil(channels/TILE) * groups blocks of 256 threads; ADJOINT: pixels in strides' phases
 * cost        2 N Ho Wo Cout Cin/groups kh kw flop less the taps that lie in the padding of a whole tile; bytes at least
 *             x + w + y once; each block reads TILE*(1 + 1) values per TILE*TILE multiply-adds
 * order       taps in order, channels in order within a tap: the same sum on every run and on every GPU
 * measured    not measured
 * hot         conv2d_gather
 * source      implicit GEMM: Chetlur et al. 2014 (cuDNN), section 3; register tiling: Volkov & Demmel 2008
 * arch        75 80 86 89 90 100 120
 * specialise  real = float16 bfloat16; ADJOINT = 0 1; LAYOUT = 0 1 2; TILE = 64 128
 * specialise  real = float32; ADJOINT = 0 1; LAYOUT = 0 2; TILE = 64 128
 * specialise  real = float64; ADJOINT = 0 1; LAYOUT = 0 2; TILE = 64
 */
#include "conv_geometry.cuh"
#include "scalar.cuh"

using accum = accumulate<real>::type;

constexpr int THREADS = 256;
constexpr int BK = 8;                        // source channels of one step
constexpr int PER_THREAD = TILE * BK / THREADS;  // values of each operand that a thread loads in a step
constexpr int HALVES = TILE / 64;            // a thread owns 4 x 4 results in each 64 x 64 quarter of the tile

// 16-bit results are packed for wide stores; wide ones would need the sums in aligned registers, and spill.
constexpr int RUN = sizeof(real) == 2 ? LAYOUT : 0;

using quad = vec<accum, 4>;
using piece = vec<real, PER_THREAD>;

// A tile of TILE destination channels x TILE pixels. Steps go over taps (outer) and source channels (inner), so that a
// pixel's address and validity are found once per tap. Values of the next step travel to registers during this one.
extern "C" __global__ void __launch_bounds__(256, 2) conv2d_gather(
    const real* __restrict__ source,  // [images, groups * source_channels, source_rows, source_cols], strided
    const real* __restrict__ packed,  // [groups, taps, source_channels, packed_pitch]
    const real* __restrict__ bias,    // [groups * channels] or null
    real* __restrict__ result,        // [images, groups * channels, rows, cols], strided
    int64_t source_n, int64_t source_c, int64_t source_h, int64_t source_w,
    int64_t result_n, int64_t result_c, int64_t result_h, int64_t result_w,
    int images, int source_channels, int channels, int packed_pitch, int source_rows, int source_cols, int rows,
    int cols, int kernel_rows, int kernel_cols, int stride_rows, int stride_cols, int pad_top, int pad_left,
    int dilation_rows, int dilation_cols, int tap_step_rows, int tap_step_cols, int inverse_rows, int inverse_cols,
    double inverse_plane) {
  __shared__ __align__(16) accum weights[2][BK][TILE];
  __shared__ __align__(16) accum pixels[2][BK][TILE];
  __shared__ Pixel table[TILE];  // decoded once, kept out of the registers that the sums need
  const Geometry geometry{kernel_cols, stride_rows,   stride_cols,   pad_top,    pad_left,
                          dilation_rows, dilation_cols, source_rows, source_cols};
  const int thread = threadIdx.x;
  const int channel_tiles = (channels + TILE - 1) / TILE;
  // Blocks go over channels, then over phases, so that those that write between each other's pixels run together.
  const int down = ADJOINT ? min(stride_rows, rows) : 1, across = ADJOINT ? min(stride_cols, cols) : 1;
  const Pixels all{images, (rows + down - 1) / down, (cols + across - 1) / across, inverse_plane};
  const unsigned pixel_tiles = (unsigned)((all.count() + TILE - 1) / TILE);
  unsigned block = blockIdx.x;
  const int channel_base = block % channel_tiles * TILE;
  block /= channel_tiles;
  const unsigned place = block % (down * across);
  block /= down * across;
  const int64_t pixel_base = (int64_t)(block % pixel_tiles) * TILE;
  const int group = (int)(block / pixel_tiles);
  const Phase phase =
      ADJOINT ? Phase::transposed(geometry, kernel_rows, {tap_step_rows, inverse_rows}, {tap_step_cols, inverse_cols},
                                  place / across, place % across)
              : Phase::whole(kernel_rows, kernel_cols);
  const int taps = phase.taps();

  // What this thread loads in each step: PER_THREAD channels of one pixel, and as many weights of one channel.
  if (thread < TILE) table[thread] = all.at(pixel_base + thread, phase, rows, cols);
  __syncthreads();
  const int mine_channel = thread / TILE * PER_THREAD;
  const int weight_channel = thread * PER_THREAD / TILE, weight_column = thread * PER_THREAD % TILE;
  const real* weight_plane = packed + (int64_t)group * kernel_rows * kernel_cols * source_channels * packed_pitch;

  const real* from = source;  // channel 0 of the group at the pixel that this thread's tap reads
  bool valid = false;
  int weight_tap = 0;
  auto locate = [&](int index) {
    const Pixel mine = table[thread % TILE];
    const Tap tap = phase.tap(index);
    int row = 0, col = 0;
    valid = mine.inside && geometry.source<ADJOINT>(mine.row, mine.col, tap, row, col);
    weight_tap = tap.row * kernel_cols + tap.col;
    if (valid)
      from = source + mine.image * source_n + (int64_t)group * source_channels * source_c + row * source_h
             + col * source_w;
    return valid;
  };
  const uint64_t active = active_taps(taps, locate);

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
    next_weights = there ? *(const piece*)(weight_plane + ((int64_t)weight_tap * source_channels + k) * packed_pitch + column)
                         : piece{};
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
  accum sum[HALVES * 4][HALVES * 4];
#pragma unroll
  for (int i = 0; i < HALVES * 4; ++i) {
    const bool biased = bias && channel_of(i) < channels;
    const accum start = biased ? (accum)load(bias[group * channels + channel_of(i)]) : accum(0);
#pragma unroll
    for (int j = 0; j < HALVES * 4; ++j) sum[i][j] = start;
  }
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

  // 16-bit results leave in runs of 4, along pixels (LAYOUT 1) or along channels (LAYOUT 2); others one by one.
  real* plane = result + (int64_t)group * channels * result_c;
#pragma unroll
  for (int j = 0; j < HALVES * 4; j += RUN == 1 ? 4 : 1) {
    const Pixel p = table[j / 4 * 64 + col4 + j % 4];
    if (!p.inside) continue;
    real* out = plane + p.image * result_n + p.row * result_h + p.col * result_w;
#pragma unroll
    for (int i = 0; i < HALVES * 4; i += RUN == 2 ? 4 : 1) {
      if (channel_of(i) >= channels) continue;
      real* to = out + channel_of(i) * result_c;
      if constexpr (RUN == 0) {
        store(to, sum[i][j]);
      } else {
        vec<real, 4> run;
#pragma unroll
        for (int e = 0; e < 4; ++e) store(&run.v[e], RUN == 1 ? sum[i][j + e] : sum[i + e][j]);
        *(vec<real, 4>*)to = run;
      }
    }
  }
}
