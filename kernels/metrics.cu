/* metrics.cu: counts for metrics of segmentations: pairs of labels, borders between labels, borders that meet.
 *
 * formula     metrics_pairs: table[t - target_first][p - pred_first] += 1 over all pixels but those of target `ignore`.
 *             metrics_borders: border[p] = 1 where the label differs from the right or the lower neighbour's.
 *             metrics_near: counts[0] += border a, counts[1] += border a with a border of b within a disk of `reach`.
 * layout      maps dense, [size] or [images, H, W]; table [rows, cols]; bad [2]: the first pixel, plus 1, whose pred or
 *             target is outside of the table, ~0 where there is none; counts [images, 2].
 * launch      256 threads. metrics_pairs: a thread takes EACH pixels that follow one another, so that equal pairs in a
 *             row count once; blocks stride over the map; the table is in shared memory where `bins` (rows x cols) is
 *             not 0. metrics_borders, metrics_near: a thread a pixel, grid.y images.
 * cost        bytes: both maps once, and the table; borders: the map twice, the second time from L1, a byte a pixel;
 *             near: (2 reach + 1)^2 bytes from L1 at most for each pixel of the border.
 * order       integer atomics alone: the same counts from run to run.
 * measured    not measured
 * source      ours
 * arch        75 80 86 89 90 100 120
 * hot         metrics_pairs
 * specialise  PRED = 1 4 8; TARGET = 1 4 8
 */
#include "scalar.cuh"

template <int BYTES> struct integer { using type = uint8_t; };
template <> struct integer<4> { using type = int32_t; };
template <> struct integer<8> { using type = int64_t; };
using pred_t = integer<PRED>::type;
using target_t = integer<TARGET>::type;

constexpr int BLOCK = 256;
constexpr int EACH = 8;

// EACH labels, by loads of up to 16 bytes where the address allows.
template <class T> __device__ __forceinline__ void take(const T* from, bool wide, T (&to)[EACH]) {
  constexpr int N = sizeof(T) * EACH > 16 ? 16 / sizeof(T) : EACH;
  if (wide) {
#pragma unroll
    for (int i = 0; i < EACH; i += N) {
      const vec<T, N> piece = *(const vec<T, N>*)(from + i);
#pragma unroll
      for (int j = 0; j < N; ++j) to[i + j] = piece.v[j];
    }
  } else {
#pragma unroll
    for (int i = 0; i < EACH; ++i) to[i] = from[i];
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK) metrics_pairs(
    const pred_t* __restrict__ pred, const target_t* __restrict__ target,  // [size]
    int64_t* table,                                                        // [rows, cols]
    uint64_t* bad, int64_t size, int64_t pred_first, int64_t target_first, int rows, int cols, int64_t ignore,
    int has_ignore, int bins, int wide) {
  extern __shared__ __align__(16) unsigned held[];  // [bins]
  for (int i = threadIdx.x; i < bins; i += BLOCK) held[i] = 0;
  __syncthreads();
  auto count = [&](int64_t pair, unsigned run) {
    if (!run) return;
    if (bins) atomicAdd(&held[(int)pair], run);
    else atomicAdd((unsigned long long*)table + pair, (unsigned long long)run);
  };
  int64_t last = 0;
  unsigned run = 0;
  auto add = [&](int64_t at, pred_t given, target_t wanted) {
    if (has_ignore && (int64_t)wanted == ignore) return;
    const int64_t p = (int64_t)given - pred_first, t = (int64_t)wanted - target_first;
    const bool off_p = p < 0 || p >= cols, off_t = t < 0 || t >= rows;
    if (off_p) atomicMin((unsigned long long*)bad, (unsigned long long)at + 1);
    if (off_t) atomicMin((unsigned long long*)bad + 1, (unsigned long long)at + 1);
    if (off_p || off_t) return;
    const int64_t pair = t * cols + p;
    if (pair != last) {
      count(last, run);
      last = pair, run = 0;
    }
    ++run;
  };
  const int64_t whole = size / EACH, step = (int64_t)gridDim.x * BLOCK;
  for (int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x; i < whole; i += step) {
    pred_t p[EACH];
    target_t t[EACH];
    take(pred + i * EACH, wide, p);
    take(target + i * EACH, wide, t);
#pragma unroll
    for (int j = 0; j < EACH; ++j) add(i * EACH + j, p[j], t[j]);
  }
  if (blockIdx.x == 0 && threadIdx.x < size % EACH) {
    const int64_t at = whole * EACH + threadIdx.x;
    add(at, pred[at], target[at]);
  }
  count(last, run);
  __syncthreads();
  for (int i = threadIdx.x; i < bins; i += BLOCK)
    if (held[i]) atomicAdd((unsigned long long*)table + i, (unsigned long long)held[i]);
}

extern "C" __global__ void __launch_bounds__(BLOCK) metrics_borders(
    const pred_t* __restrict__ labels, uint8_t* __restrict__ border,  // [images, height, width]
    int height, int width, int images, int64_t chosen, int has_chosen) {
  const int64_t plane = (int64_t)height * width, p = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  if (p >= plane) return;
  const bool right = p % width + 1 < width, below = p / width + 1 < height;
  for (int64_t n = blockIdx.y; n < images; n += gridDim.y) {
    const pred_t* map = labels + n * plane;
    // of one class alone: does the neighbour belong to it as this pixel does
    auto differ = [&](int64_t q) {
      return has_chosen ? ((int64_t)map[p] == chosen) != ((int64_t)map[q] == chosen) : map[p] != map[q];
    };
    border[n * plane + p] = (right && differ(p + 1)) || (below && differ(p + width));
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK) metrics_near(
    const uint8_t* __restrict__ a, const uint8_t* __restrict__ b,  // [images, height, width]
    int64_t* counts,                                               // [images, 2]
    int height, int width, int images, double reach) {
  __shared__ int sums[2];
  const int64_t plane = (int64_t)height * width, p = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  const double square = reach * reach;
  const int rows = (int)reach;
  for (int64_t n = blockIdx.y; n < images; n += gridDim.y) {
    if (threadIdx.x < 2) sums[threadIdx.x] = 0;
    __syncthreads();
    if (p < plane && a[n * plane + p]) {
      const int y = (int)(p / width), x = (int)(p % width);
      bool found = false;
      for (int v = max(0, y - rows); v <= min(height - 1, y + rows) && !found; ++v) {
        const double left = square - (double)(v - y) * (v - y);
        for (int u = max(0, x - rows); u <= min(width - 1, x + rows); ++u)
          if ((double)(u - x) * (u - x) <= left && b[n * plane + (int64_t)v * width + u]) {
            found = true;
            break;
          }
      }
      atomicAdd(&sums[0], 1);
      if (found) atomicAdd(&sums[1], 1);
    }
    __syncthreads();
    if (threadIdx.x < 2 && sums[threadIdx.x])
      atomicAdd((unsigned long long*)counts + 2 * n + threadIdx.x, (unsigned long long)sums[threadIdx.x]);
    __syncthreads();
  }
}
