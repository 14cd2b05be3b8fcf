/* neighbors.cu: the graphs of points: the nearest ones of each, those within a radius, all pairs.
 *
 * formula     s_ij = sum_d (x_id - x_jd)^2. nearest: of each i the `keep` pairs (s_ij, j) that are least, in their order.
 *             count, fill: the j with s_ij <= reach, and exp(-gamma s_ij). all: exp(-gamma s_ij) of every pair
 * layout      x [N, D]; lists [parts, N, keep], ascending; counts and starts [N, parts]
 * launch      256 threads, a tile of 64 points against 64 (float64: 32 against 64), 16 or 4 features at a time in shared
 *             memory. nearest, count, fill: grid.x tiles of points, grid.y parts of `chunk` points that they are compared
 *             with, one tile after another; the lists lie in dynamic shared memory, and neighbors_merge makes one of those
 *             of all parts. Lists hold 64 at most: more are found in passes, each after the last of the pass before
 *             (`after`). all: grid.x and grid.y tiles
 * cost        3 N^2 D flops, in 2 N^2 D instructions; 2 N^2 D / 64 numbers from L1 or L2. Selection: 2 accesses of shared
 *             memory and 1/32 of a vote a pair, and about k log(N / k) insertions a point of some 20 warp instructions.
 *             all: N^2 numbers written. Predicted, not measured, for an H100 in float32, N = 50,000, k = 10: D = 2: 4 ms,
 *             D = 64: 15 ms; all of N = 10,000: 0.4 GB, 0.2 ms
 * order       features by their numbers, so that s_ij and s_ji are the same bits; pairs by distance and then by number,
 *             columns ascending; no atomics: the same bits on every run. s_ij is off by (D + 3) units of rounding at most
 * measured    not measured
 * hot         neighbors_nearest neighbors_fill neighbors_all
 * source      tiles: as a matrix product; selection by a threshold and a sorted list in a warp: J. Johnson, M. Douze,
 *             H. Jegou, Billion-scale similarity search with GPUs, 2017 (idea)
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64; DEPTH = 4 16
 */
#include "sorted_list.cuh"

constexpr unsigned ALL = 0xffffffffu;
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int ROWS = sizeof(real) == 4 ? 4 : 2;  // points of a thread
constexpr int COLS = 4;                          // and others
constexpr int QUERIES = 16 * ROWS;               // of a tile
constexpr int POINTS = 16 * COLS;
constexpr int PITCH = 4;  // numbers between rows of shared memory
constexpr real FAR = real(sizeof(real) == 4 ? 3e38 : 1e300);  // more than any square distance
constexpr int WIDE = 16 / sizeof(real);
using quad = vec<real, WIDE>;

// ---- square distances of a tile -------------------------------------------------------------------------

struct Staged {
  real query[DEPTH][QUERIES + PITCH];
  real point[DEPTH][POINTS + PITCH];
};

template <int COUNT, int WIDTH>
__device__ __forceinline__ void stage(real (&to)[DEPTH][WIDTH], const real* x, int64_t first, int64_t n, int dims,
                                      int from) {
#pragma unroll
  for (int t = threadIdx.x; t < COUNT * DEPTH; t += THREADS) {
    const int s = t % DEPTH, r = t / DEPTH;
    to[s][r] = first + r < n && from + s < dims ? x[(first + r) * dims + from + s] : real(0);
  }
}

template <int COUNT, int WIDTH>
__device__ __forceinline__ void fetch(real (&to)[COUNT], const real (&row)[WIDTH], int first) {
  if constexpr (COUNT % WIDE == 0) {
#pragma unroll
    for (int i = 0; i < COUNT; i += WIDE) {
      const quad v = *reinterpret_cast<const quad*>(&row[first + i]);
#pragma unroll
      for (int e = 0; e < WIDE; ++e) to[i + e] = v.v[e];
    }
  } else {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) to[i] = row[first + i];
  }
}

// Of the points 16 rows of threads down from `query`, and the others 16 threads across from `point`.
__device__ __forceinline__ void distances(const real* x, int64_t query, int64_t point, int64_t n, int dims,
                                          Staged& staged, real (&square)[ROWS][COLS]) {
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
  for (int i = 0; i < ROWS; ++i)
#pragma unroll
    for (int j = 0; j < COLS; ++j) square[i][j] = real(0);
  for (int from = 0; from < dims; from += DEPTH) {
    __syncthreads();
    stage<QUERIES>(staged.query, x, query, n, dims, from);
    stage<POINTS>(staged.point, x, point, n, dims, from);
    __syncthreads();
#pragma unroll 4
    for (int s = 0; s < DEPTH; ++s) {
      real a[ROWS], b[COLS];
      fetch(a, staged.query[s], ROWS * ty);
      fetch(b, staged.point[s], COLS * tx);
#pragma unroll
      for (int i = 0; i < ROWS; ++i)
#pragma unroll
        for (int j = 0; j < COLS; ++j) {
          const real off = a[i] - b[j];
          square[i][j] += off * off;
        }
    }
  }
}

// ---- the nearest ----------------------------------------------------------------------------------------

using List = SortedList<real>;  // of pairs: distance and number

// Takes the pairs of the lanes that are nearer than the list's last, first the one of each lane, then the other.
__device__ __forceinline__ void absorb(List& list, real& bound, int keep, real one, int one_index, real two,
                                       int two_index) {
  unsigned first = __ballot_sync(ALL, one < bound), second = __ballot_sync(ALL, two < bound);
  while (first | second) {
    const bool here = first != 0;
    const int from = __ffs(here ? first : second) - 1;
    const real v = __shfl_sync(ALL, here ? one : two, from);
    const int index = __shfl_sync(ALL, here ? one_index : two_index, from);
    if (here)
      first &= first - 1;
    else
      second &= second - 1;
    if (v < bound) {
      list.insert(v, index);
      bound = list.last(keep);
    }
  }
}

__device__ __forceinline__ List load_list(const real* distance, const int32_t* index, int keep) {
  const int lane = threadIdx.x % 32;
  List list = {FAR, FAR, -1, -1};
  if (lane < keep) {
    list.low = distance[lane];
    list.low_index = index[lane];
  }
  if (lane + 32 < keep) {
    list.high = distance[lane + 32];
    list.high_index = index[lane + 32];
  }
  return list;
}

__device__ __forceinline__ void store_list(const List& list, real* distance, int32_t* index, int keep) {
  const int lane = threadIdx.x % 32;
  if (lane < keep) {
    distance[lane] = list.low;
    index[lane] = list.low_index;
  }
  if (lane + 32 < keep) {
    distance[lane + 32] = list.high;
    index[lane + 32] = list.high_index;
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) neighbors_nearest(
    const real* __restrict__ x,                                                   // [N, D]
    const real* __restrict__ after, const int32_t* __restrict__ after_index,      // [N] or null: those up to here are out
    real* __restrict__ distance, int32_t* __restrict__ index,                     // [parts, N, keep]
    int64_t n, int dims, int keep, int64_t chunk) {
  extern __shared__ __align__(16) unsigned char space[];
  real* kept = reinterpret_cast<real*>(space);                               // [QUERIES, keep]
  int32_t* kept_index = reinterpret_cast<int32_t*>(kept + QUERIES * keep);
  __shared__ __align__(16) Staged staged;
  __shared__ __align__(16) real near[QUERIES][POINTS + PITCH];
  __shared__ real bounds[QUERIES];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const int64_t query = (int64_t)blockIdx.x * QUERIES;
  const int64_t begin = (int64_t)blockIdx.y * chunk, end = begin + chunk < n ? begin + chunk : n;
  for (int t = threadIdx.x; t < QUERIES * keep; t += THREADS) {
    kept[t] = FAR;
    kept_index[t] = -1;
  }
  for (int t = threadIdx.x; t < QUERIES; t += THREADS) bounds[t] = FAR;
  real out[ROWS];
  int out_index[ROWS];
#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
    const int64_t q = query + ROWS * ty + i;
    const bool some = after && q < n;
    out[i] = some ? after[q] : real(-1);
    out_index[i] = some ? after_index[q] : -1;
  }
  for (int64_t point = begin; point < end; point += POINTS) {
    real square[ROWS][COLS];
    distances(x, query, point, n, dims, staged, square);
#pragma unroll
    for (int i = 0; i < ROWS; ++i)
#pragma unroll
      for (int j = 0; j < COLS; ++j) {
        const int64_t p = point + COLS * tx + j;
        const real v = square[i][j];
        const bool passed = v < out[i] || (v == out[i] && p <= out_index[i]);
        near[ROWS * ty + i][COLS * tx + j] = p < end && !passed ? v : FAR;
      }
    __syncthreads();
    for (int r = warp; r < QUERIES; r += WARPS) {
      real bound = bounds[r];
      const real one = near[r][lane], two = near[r][lane + 32];
      if (__any_sync(ALL, one < bound || two < bound)) {
        List list = load_list(kept + r * keep, kept_index + r * keep, keep);
        absorb(list, bound, keep, one, (int)point + lane, two, (int)point + lane + 32);
        store_list(list, kept + r * keep, kept_index + r * keep, keep);
        __syncwarp();
        if (lane == 0) bounds[r] = bound;
        __syncwarp();
      }
    }
  }
  __syncthreads();
  const int64_t rows = n - query < QUERIES ? n - query : QUERIES;
  const int64_t to = ((int64_t)blockIdx.y * n + query) * keep;
  for (int t = threadIdx.x; t < rows * keep; t += THREADS) {
    distance[to + t] = kept[t];
    index[to + t] = kept_index[t];
  }
}

// A warp makes one list of those of all parts.
extern "C" __global__ void __launch_bounds__(THREADS) neighbors_merge(
    const real* __restrict__ part, const int32_t* __restrict__ part_index,  // [parts, N, keep]
    real* __restrict__ distance, int32_t* __restrict__ index,               // [N, keep]
    int64_t n, int parts, int keep) {
  const int64_t q = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  if (q >= n) return;
  List list = load_list(part + q * keep, part_index + q * keep, keep);
  real bound = list.last(keep);
  for (int p = 1; p < parts; ++p) {
    const int64_t at = (p * n + q) * keep;
    const List other = load_list(part + at, part_index + at, keep);
    absorb(list, bound, keep, other.low, other.low_index, other.high, other.high_index);
  }
  store_list(list, distance + q * keep, index + q * keep, keep);
}

// ---- within a radius ------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS, 3) neighbors_count(
    const real* __restrict__ x,        // [N, D]
    int64_t* __restrict__ counts,      // [N, parts]
    int64_t n, int dims, double reach, int64_t chunk) {
  __shared__ __align__(16) Staged staged;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const int64_t query = (int64_t)blockIdx.x * QUERIES;
  const int64_t begin = (int64_t)blockIdx.y * chunk, end = begin + chunk < n ? begin + chunk : n;
  int count[ROWS];
#pragma unroll
  for (int i = 0; i < ROWS; ++i) count[i] = 0;
  for (int64_t point = begin; point < end; point += POINTS) {
    real square[ROWS][COLS];
    distances(x, query, point, n, dims, staged, square);
#pragma unroll
    for (int i = 0; i < ROWS; ++i)
#pragma unroll
      for (int j = 0; j < COLS; ++j) count[i] += point + COLS * tx + j < end && square[i][j] <= real(reach);
  }
#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
#pragma unroll
    for (int by = 8; by > 0; by /= 2) count[i] += __shfl_xor_sync(ALL, count[i], by);
    const int64_t q = query + ROWS * ty + i;
    if (tx == 0 && q < n) counts[q * gridDim.y + blockIdx.y] = count[i];
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) neighbors_fill(
    const real* __restrict__ x,                                       // [N, D]
    const int64_t* __restrict__ starts,                               // [N, parts]
    int64_t* __restrict__ columns, real* __restrict__ weights,        // [edges]
    int64_t n, int dims, double reach, double gamma, int64_t chunk) {
  __shared__ __align__(16) Staged staged;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const int64_t query = (int64_t)blockIdx.x * QUERIES;
  const int64_t begin = (int64_t)blockIdx.y * chunk, end = begin + chunk < n ? begin + chunk : n;
  int64_t next[ROWS];
#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
    const int64_t q = query + ROWS * ty + i;
    next[i] = q < n ? starts[q * gridDim.y + blockIdx.y] : 0;
  }
  for (int64_t point = begin; point < end; point += POINTS) {
    real square[ROWS][COLS];
    distances(x, query, point, n, dims, staged, square);
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      int mine = 0;
#pragma unroll
      for (int j = 0; j < COLS; ++j) mine += point + COLS * tx + j < end && square[i][j] <= real(reach);
      int upto = mine;
#pragma unroll
      for (int by = 1; by < 16; by *= 2) {
        const int other = __shfl_up_sync(ALL, upto, by, 16);
        if (tx >= by) upto += other;
      }
      if (query + ROWS * ty + i < n) {
        int64_t to = next[i] + upto - mine;
#pragma unroll
        for (int j = 0; j < COLS; ++j) {
          const int64_t p = point + COLS * tx + j;
          if (p < end && square[i][j] <= real(reach)) {
            columns[to] = p;
            weights[to] = exp(-real(gamma) * square[i][j]);
            ++to;
          }
        }
      }
      next[i] += __shfl_sync(ALL, upto, 15, 16);
    }
  }
}

// ---- all pairs ------------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS, 3) neighbors_all(
    const real* __restrict__ x,  // [N, D]
    real* __restrict__ out,      // [N, N]
    int64_t n, int dims, double gamma) {
  __shared__ __align__(16) Staged staged;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const int64_t query = (int64_t)blockIdx.y * QUERIES, first = (int64_t)blockIdx.x * POINTS + COLS * tx;
  real square[ROWS][COLS];
  distances(x, query, (int64_t)blockIdx.x * POINTS, n, dims, staged, square);
#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
    const int64_t q = query + ROWS * ty + i;
    if (q >= n) continue;
#pragma unroll
    for (int j = 0; j < COLS; ++j) square[i][j] = exp(-real(gamma) * square[i][j]);
    if (n % COLS == 0 && first < n) {
#pragma unroll
      for (int j = 0; j < COLS; j += WIDE) {
        quad v;
#pragma unroll
        for (int e = 0; e < WIDE; ++e) v.v[e] = square[i][j + e];
        *reinterpret_cast<quad*>(out + q * n + first + j) = v;
      }
    } else {
#pragma unroll
      for (int j = 0; j < COLS; ++j)
        if (first + j < n) out[q * n + first + j] = square[i][j];
    }
  }
}
