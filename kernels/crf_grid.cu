/* crf_grid.cu: the Gaussian of pixel distances over a whole image, by rows and columns.
 *
 * formula     y[i] = sum_j w[|i - j|] x[j] along one axis, j within the image and |i - j| <= radius. The launcher
 *             runs it along x, then along y. crf_grid_dot: sum over all i and channels of g[i] y[i].
 *             crf_grid_total: the sums of two stretches of numbers.
 * layout      [outer, n, inner] vectors of 16 bytes: along x the rows of the images are outer and the channels of
 *             a pixel inner, along y the images are outer and a row of pixels is inner.
 * launch      a thread owns OUTPUTS results of one vector of channels, side by side on the axis. ceil(inner / 32)
 *             spans share `inner` evenly; a block is a span wide and as many stretches of OUTPUTS results deep as
 *             make up to 256 threads. Blocks go through the spans first. crf_grid_total: 2 blocks.
 * cost        bytes: x and y once each from DRAM, (OUTPUTS + 2 radius) / OUTPUTS times x from L1. flops an
 *             element: 2 (2 radius + 1), rounded up to whole blocks of OUTPUTS weights. At theta = 3, 24
 *             channels, 512 x 512 in float32: 50 MB and 0.45 GFLOP a pass, so that both bounds are near.
 * order       by position, one fused multiply-add each; dot: within a thread, then a tree over the block, then
 *             over the blocks in a fixed order. No atomics: the same bits from run to run.
 * measured    not measured
 * hot         crf_grid_axis
 * source      -
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32; OUTPUTS = 12
 * specialise  real = float64; OUTPUTS = 6
 */
#include "scalar.cuh"

constexpr int BLOCK = 256;
constexpr int WIDE = 16 / sizeof(real);
using piece = vec<real, WIDE>;

static_assert(OUTPUTS % WIDE == 0, "weights are read in vectors");

// Where a thread works: at the first vector of a line of the axis, and there in the stretch `chunk` of OUTPUTS results.
struct Place {
  int64_t line;
  int chunk;
  bool there;
};

__device__ __forceinline__ Place place(unsigned places, unsigned chunks, int n, int64_t inner, unsigned spans) {
  const int64_t lane = (int64_t)(blockIdx.x % spans) * blockDim.x + threadIdx.x;
  const unsigned at = blockIdx.x / spans * blockDim.y + threadIdx.y;
  return {(int64_t)(at / chunks) * n * inner + lane, (int)(at % chunks), lane < inner && at < places};
}

__device__ __forceinline__ void fetch(real (&w)[OUTPUTS], const real* weights) {
#pragma unroll
  for (int k = 0; k < OUTPUTS; k += WIDE) {
    const piece some = *reinterpret_cast<const piece*>(weights + k);
#pragma unroll
    for (int e = 0; e < WIDE; ++e) w[k + e] = some.v[e];
  }
}

// OUTPUTS source vectors from `row` on, and what they add to the results: result j takes vector s by weight s - j of
// the present block of weights, or by weight OUTPUTS + s - j of the block before. The first block has none before it,
// and after the last one only those before are left. INSIDE: all these rows are in the image.
template <bool BEFORE, bool NOW, bool INSIDE>
__device__ __forceinline__ void add(piece (&sum)[OUTPUTS], const real (&before)[OUTPUTS], const real (&now)[OUTPUTS],
                                    const piece* x, int64_t inner, int row, int n) {
#pragma unroll
  for (int s = 0; s < (NOW ? OUTPUTS : OUTPUTS - 1); ++s, x += inner) {
    piece v = {};
    if (INSIDE || (row + s >= 0 && row + s < n)) v = *x;
#pragma unroll
    for (int j = 0; j < OUTPUTS; ++j) {
      if (j <= s ? !NOW : !BEFORE) continue;
      const real w = j <= s ? now[j <= s ? s - j : 0] : before[j <= s ? 0 : OUTPUTS + s - j];
#pragma unroll
      for (int e = 0; e < WIDE; ++e) sum[j].v[e] += w * v.v[e];
    }
  }
}

template <bool BEFORE, bool NOW>
__device__ __forceinline__ void add(piece (&sum)[OUTPUTS], const real (&before)[OUTPUTS], const real (&now)[OUTPUTS],
                                    const piece* x, int64_t inner, int row, int n) {
  if (row >= 0 && row + OUTPUTS <= n) add<BEFORE, NOW, true>(sum, before, now, x, inner, row, n);
  else add<BEFORE, NOW, false>(sum, before, now, x, inner, row, n);
}

__device__ __forceinline__ void filter(piece (&sum)[OUTPUTS], const piece* x, const real* weights, int blocks,
                                       const Place& at, int n, int64_t inner, int radius) {
  real before[OUTPUTS], now[OUTPUTS];
  const int first = at.chunk * OUTPUTS - radius;
  const int end = min(blocks + 1, (n - first + OUTPUTS - 1) / OUTPUTS);
  int b = first < 0 ? -first / OUTPUTS : 0;  // what lies outside of the image is left out by whole blocks
  int row = first + b * OUTPUTS;
  x += at.line + row * inner;
  fetch(before, weights + max(b - 1, 0) * OUTPUTS);
  if (b == 0) {
    add<false, true>(sum, before, before, x, inner, row, n);
    ++b, row += OUTPUTS, x += OUTPUTS * inner;
  }
#pragma unroll 1
  for (; b < min(end, blocks); ++b, row += OUTPUTS, x += OUTPUTS * inner) {
    fetch(now, weights + b * OUTPUTS);
    add<true, true>(sum, before, now, x, inner, row, n);
#pragma unroll
    for (int k = 0; k < OUTPUTS; ++k) before[k] = now[k];
  }
  if (b < end) add<true, false>(sum, before, before, x, inner, row, n);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2) crf_grid_axis(
    const real* __restrict__ x,        // [outer, n, inner] vectors
    const real* __restrict__ weights,  // [blocks * OUTPUTS]: of distance -radius ... radius, then zeros
    real* __restrict__ y,              // as x
    unsigned places, unsigned chunks, int n, int64_t inner, unsigned spans, int radius, int blocks) {
  const Place at = place(places, chunks, n, inner, spans);
  if (!at.there) return;
  piece sum[OUTPUTS] = {};
  filter(sum, reinterpret_cast<const piece*>(x), weights, blocks, at, n, inner, radius);
#pragma unroll
  for (int j = 0; j < OUTPUTS; ++j) {
    const int row = at.chunk * OUTPUTS + j;
    if (row < n) reinterpret_cast<piece*>(y)[at.line + row * inner] = sum[j];
  }
}

// The sum of a number of each thread, in thread 0.
__device__ __forceinline__ double block_sum(double mine, int thread, int threads) {
  __shared__ double sums[BLOCK];
  sums[thread] = mine;
  __syncthreads();
#pragma unroll
  for (int half = BLOCK / 2; half > 0; half /= 2) {
    if (thread < half && thread + half < threads) sums[thread] += sums[thread + half];
    __syncthreads();
  }
  return sums[0];
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2) crf_grid_dot(
    const real* __restrict__ x,        // [outer, n, inner] vectors
    const real* __restrict__ weights,  // [blocks * OUTPUTS]
    const real* __restrict__ g,        // as x
    double* __restrict__ parts,        // [gridDim.x]
    unsigned places, unsigned chunks, int n, int64_t inner, unsigned spans, int radius, int blocks) {
  const Place at = place(places, chunks, n, inner, spans);
  double mine = 0.0;
  if (at.there) {
    piece sum[OUTPUTS] = {};
    filter(sum, reinterpret_cast<const piece*>(x), weights, blocks, at, n, inner, radius);
#pragma unroll
    for (int j = 0; j < OUTPUTS; ++j) {
      const int row = at.chunk * OUTPUTS + j;
      if (row >= n) continue;
      const piece given = reinterpret_cast<const piece*>(g)[at.line + row * inner];
#pragma unroll
      for (int e = 0; e < WIDE; ++e) mine += (double)given.v[e] * (double)sum[j].v[e];
    }
  }
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  const double total = block_sum(mine, thread, blockDim.x * blockDim.y);
  if (thread == 0) parts[blockIdx.x] = total;
}

// Block 0 sums the first `n` parts, block 1 the others.
extern "C" __global__ void __launch_bounds__(BLOCK) crf_grid_total(
    const double* __restrict__ parts,  // [all]
    double* __restrict__ result,       // [2]
    int64_t n, int64_t all) {
  const int64_t end = blockIdx.x == 0 ? n : all;
  double mine = 0.0;
  for (int64_t i = (blockIdx.x == 0 ? 0 : n) + threadIdx.x; i < end; i += BLOCK) mine += parts[i];
  const double total = block_sum(mine, threadIdx.x, BLOCK);
  if (threadIdx.x == 0) result[blockIdx.x] = total;
}
