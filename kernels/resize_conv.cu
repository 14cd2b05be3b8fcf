/* resize_conv.cu: a convolution of an enlarged image that never exists, on the ordinary cores; and combined weights.
 *
 * formula     y[n,o,p,q] = b[o] + sum_{c,i,j} v[kind(p)][kind(q)][i][j][c][o] u[n,c, row(p) + i step, col(q) + j step]
 *             with v[a][b][i][j] = sum_{r,s} M[a][i][r] M'[b][j][s] w[..,r,s] and u = x (TAPS = 0: phases of resize and
 *             convolution, see cv3gpu/_polyphase.py) or the enlarged x (v = w); zeros outside u
 * layout      any strides; combined weights [row kind][column kind][tap][source channel][pitch], in the type of the sums;
 *             WIDE = 0: [..][tap][channel][pitch of source channels] in the type of the input, for resize_conv_mma.cu
 * launch      resize_conv: (tiles * ceil(channels/64), images) blocks of 256 threads; a tile is 64 places of a job
 *             (resize_conv.cuh); shared memory for 64 channels of its results. resize_conv_combine: grid-stride
 * cost        2 N Cout C flop for each element that a result takes from: nearest x2 and 3 x 3 taps 4 (of 9), bilinear x4
 *             6.3; with TAPS > 0 kh kw, and TAPS^2 + TAPS more for 64 products. bytes at least x + v + y once; no
 *             enlarged image. combine: 2 kh kw flop for each number
 * order       taps in order, channels in order within a tap: the same sum on every run and on every GPU
 * measured    not measured
 * hot         resize_conv
 * source      phases: Shi et al. 2016, arXiv:1609.07009; implicit GEMM: Chetlur et al. 2014 (cuDNN), section 3
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64 float16 bfloat16; TAPS = 0 1 2 4; WIDE = 1
 * specialise  real = float16 bfloat16; TAPS = 0; WIDE = 0
 */
#include "resize_conv.cuh"
#include "scalar.cuh"

constexpr int TILE = 64;
constexpr int THREADS = 256;
constexpr int BK = 8;                            // source channels of one step
constexpr int PER_THREAD = TILE * BK / THREADS;  // values of each operand that a thread loads in a step

using quad = vec<accum, 4>;
using piece = vec<accum, PER_THREAD>;

template <bool SUMS> struct packed_type { using type = accum; };
template <> struct packed_type<false> { using type = real; };
using packed_real = packed_type<WIDE>::type;

extern "C" __global__ void __launch_bounds__(256, 4) resize_conv_combine(
    const real* __restrict__ weight,       // element (o, c, r, s) at o stride_o + c stride_c + ...
    const accum* __restrict__ row_matrix,  // [row_kinds, high, kernel_rows]
    const accum* __restrict__ col_matrix,  // [col_kinds, wide, kernel_cols]
    packed_real* __restrict__ packed,      // WIDE: [.., high * wide, source_channels, pitch], else [.., channels, pitch]
    int64_t stride_o, int64_t stride_c, int64_t stride_r, int64_t stride_s, int row_kinds, int col_kinds, int high,
    int wide, int kernel_rows, int kernel_cols, int source_channels, int channels, int pitch) {
  const int lines = WIDE ? source_channels : channels, columns = WIDE ? channels : source_channels;
  const int64_t size = (int64_t)row_kinds * col_kinds * high * wide * lines * pitch;
  for (int64_t k = (int64_t)blockIdx.x * 256 + threadIdx.x; k < size; k += (int64_t)gridDim.x * 256) {
    const int column = (int)(k % pitch);
    int64_t rest = k / pitch;
    const int line = (int)(rest % lines);
    rest /= lines;
    const int j = (int)(rest % wide), i = (int)(rest / wide % high);
    rest /= (int64_t)wide * high;
    const accum* down = row_matrix + (rest / col_kinds * high + i) * kernel_rows;
    const accum* across = col_matrix + (rest % col_kinds * wide + j) * kernel_cols;
    accum sum = accum(0);
    if (column < columns) {
      const int o = WIDE ? column : line, c = WIDE ? line : column;
      const real* from = weight + o * stride_o + c * stride_c;
      for (int r = 0; r < kernel_rows; ++r) {
        if (down[r] == accum(0)) continue;
        accum row = accum(0);
        for (int s = 0; s < kernel_cols; ++s) row += across[s] * load(from[r * stride_r + s * stride_s]);
        sum += down[r] * row;
      }
    }
    store(packed + k, sum);
  }
}

// Steps go over taps (outer) and source channels (inner). Values of the next step travel to registers during this one.
extern "C" __global__ void __launch_bounds__(256, 2) resize_conv(
    const real* __restrict__ source,    // [images, source_channels, .., ..], strided
    const accum* __restrict__ packed,   // [row_kinds, col_kinds, high * wide, source_channels, pitch]
    const real* __restrict__ bias,      // [channels] or null
    real* __restrict__ result,          // [images, channels, rows, cols], strided
    const int* __restrict__ integers,   // see Tables
    const int* __restrict__ index,      // see Samples; null for TAPS = 0
    const accum* __restrict__ weight,   // see Samples; null for TAPS < 2
    int64_t source_n, int64_t source_c, int64_t source_h, int64_t source_w, int64_t result_n, int64_t result_c,
    int64_t result_h, int64_t result_w, int images, int source_channels, int channels, int pitch, int inner_rows,
    int inner_cols, int rows, int cols, int jobs, int row_kinds, int col_kinds, int high, int wide, int step_rows,
    int step_cols) {
  extern __shared__ __align__(16) unsigned char shared[];
  real* stage = (real*)shared;  // [TILE channels][stage_pitch]
  __shared__ __align__(16) accum weights[2][BK][TILE];
  __shared__ __align__(16) accum pixels[2][BK][TILE];
  __shared__ Place places[TILE];
  const int thread = threadIdx.x;
  const int channel_tiles = (channels + TILE - 1) / TILE;
  const int channel_base = blockIdx.x % channel_tiles * TILE, tile = (int)(blockIdx.x / channel_tiles);
  const Tables tables = Tables::of(integers, jobs, rows, cols, row_kinds);
  const Samples samples = Samples::of(index, weight, inner_rows);
  const Job job = tables.find(tile, jobs);
  if (thread < TILE) places[thread] = Place::at(tables, job, (tile - job.tile_begin) * TILE + thread);
  __syncthreads();

  // What this thread loads in each step: PER_THREAD channels of one pixel, and as many weights of one channel.
  const int mine_channel = thread / TILE * PER_THREAD;
  const int weight_channel = thread * PER_THREAD / TILE, weight_column = thread * PER_THREAD % TILE;
  const int tall = tables.row_length[job.row_kind];
  const int stage_pitch = TILE * job.count + (sizeof(real) == 2 ? 2 : 1);
  const int row4 = thread / 16 * 4, col4 = thread % 16 * 4;
  int buffer = 0;

  for (int64_t image = blockIdx.y; image < images; image += gridDim.y) {
    const real* from_image = source + image * source_n;
    for (int i = 0; i < job.count; ++i) {
      const int kind = tables.col_kind[job.first + i];
      const int across = tables.col_length[kind], taps = tall * across;
      const accum* weight_plane =
          packed + ((int64_t)job.row_kind * col_kinds + kind) * high * wide * source_channels * pitch;
      const Place mine = places[thread % TILE];
      const int top = mine.inside ? tables.row_base[mine.row] : 0;
      const int left = mine.inside ? tables.col_base[job.first + mine.repeat * job.period + i] : 0;

      int row = 0, col = 0, weight_tap = 0;
      bool valid = false;
      const real* from = source;
      auto locate = [&](int tap) {
        const int r = tap / across, s = tap - r * across;
        row = top + r * step_rows;
        col = left + s * step_cols;
        valid = mine.inside && row >= 0 && row < inner_rows && col >= 0 && col < inner_cols;
        weight_tap = r * wide + s;
        if constexpr (TAPS <= 1) {
          if (!valid) return;
          if constexpr (TAPS == 1) {
            row = samples.row_index[row];
            col = samples.col_index[col];
          }
          from = from_image + row * source_h + col * source_w;
        }
      };
      piece next_pixels, next_weights;
      auto fetch = [&](int step) {
        const int first = step + mine_channel;
        if constexpr (TAPS <= 1) {
#pragma unroll
          for (int e = 0; e < PER_THREAD; ++e)
            next_pixels.v[e] = valid && first + e < source_channels ? load(from[(first + e) * source_c]) : accum(0);
        } else {
          next_pixels = piece{};
          if (valid && first < source_channels) {
            for (int a = 0; a < TAPS; ++a) {
              const accum down = samples.row_weight[row * TAPS + a];
              if (down == accum(0)) continue;
              const real* line = from_image + samples.row_index[row * TAPS + a] * source_h + first * source_c;
#pragma unroll
              for (int b = 0; b < TAPS; ++b) {
                const accum w = down * samples.col_weight[col * TAPS + b];
                const real* p = line + samples.col_index[col * TAPS + b] * source_w;
#pragma unroll
                for (int e = 0; e < PER_THREAD; ++e)
                  if (w != accum(0) && first + e < source_channels) next_pixels.v[e] += w * load(p[e * source_c]);
              }
            }
          }
        }
        const int k = step + weight_channel, column = channel_base + weight_column;
        const bool there = k < source_channels && column < pitch;
        next_weights = there ? *(const piece*)(weight_plane + ((int64_t)weight_tap * source_channels + k) * pitch + column)
                             : piece{};
      };
      auto stash = [&]() {
#pragma unroll
        for (int e = 0; e < PER_THREAD; ++e) {
          pixels[buffer][mine_channel + e][thread % TILE] = next_pixels.v[e];
          weights[buffer][weight_channel][weight_column + e] = next_weights.v[e];
        }
      };

      accum sum[4][4];
#pragma unroll
      for (int a = 0; a < 4; ++a) {
        const int c = channel_base + row4 + a;
        const accum start = bias && c < channels ? (accum)load(bias[c]) : accum(0);
#pragma unroll
        for (int b = 0; b < 4; ++b) sum[a][b] = start;
      }
      int tap = 0, step = 0;
      locate(0);
      fetch(0);
      while (tap < taps) {
        stash();
        __syncthreads();
        step += BK;
        if (step >= source_channels) {
          step = 0;
          if (++tap < taps) locate(tap);
        }
        if (tap < taps) fetch(step);
#pragma unroll
        for (int k = 0; k < BK; ++k) {
          const quad a = *(const quad*)&weights[buffer][k][row4], b = *(const quad*)&pixels[buffer][k][col4];
#pragma unroll
          for (int e = 0; e < 4; ++e)
#pragma unroll
            for (int f = 0; f < 4; ++f) sum[e][f] += a.v[e] * b.v[f];
        }
        buffer ^= 1;
      }
#pragma unroll
      for (int e = 0; e < 4; ++e)
#pragma unroll
        for (int f = 0; f < 4; ++f) store(&stage[(row4 + e) * stage_pitch + (col4 + f) * job.count + i], sum[e][f]);
    }
    __syncthreads();
    real* plane = result + image * result_n + channel_base * result_c;
    flush<TILE, TILE>(stage, stage_pitch, places, job, plane, channels - channel_base, result_c, result_h, result_w);
    __syncthreads();  // all has left before the next image's results come
  }
}
