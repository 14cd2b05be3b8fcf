/* kmeans.cu: Lloyd's iteration for any number of clusters and features, sums of square distances, k-means++, k-means||.
 *
 * formula     label_i = argmin_k |c_k|^2 / 2 - <x_i, c_k>, of points and centres less the mean of all points; then
 *             c_k = sum w_i x_i / sum w_i over its points
 * layout      x [N, D], centres [K, D]; sums of a cluster in `pieces` parts, part [K, pieces, D + 1], the last one the mass.
 *             state[3]: 0 while iterations go on (other kernels then do nothing), iterations, whether a label changed
 * launch      an iteration: kmeans_assign (tiles of 128 points and 128 or 64 centres); the points sorted by cluster:
 *             kmeans_count, kmeans_scan, kmeans_starts, kmeans_scatter; kmeans_sums, kmeans_update, kmeans_test. The host
 *             reads `state` every few iterations. Where K (D + 1) is small kmeans_small.cu stands for the first six,
 *             in float32 from sm_80 on kmeans_mma.cu for kmeans_assign
 * cost        kmeans_assign 2 N K D flops, reads x once for each 128 centres; sorting 20 N bytes, kmeans_sums x once more,
 *             kmeans_update 8 K pieces (D + 1) bytes. 8 launches. Predicted, not measured, for N = 10^6, D = 64, K = 256,
 *             float32 on an H100: 33 GFLOP at 45 TFLOP/s 0.73 ms (kmeans_mma.cu: 0.4 ms), the rest 0.9 GB 0.25 ms: 20
 *             iterations 20 ms (13 ms)
 * order       ties to the lowest k. Points of a cluster by their numbers, in fixed parts; float64 sums by rows, then by
 *             parts; no atomics on floats: the same bits on every run
 * measured    not measured
 * hot         kmeans_assign
 * source      S. P. Lloyd, Least squares quantization in PCM, 1982; D. Arthur, S. Vassilvitskii, k-means++, 2007;
 *             B. Bahmani et al., Scalable k-means++, 2012; sums over points sorted by label: S. Yang et al., Flash-KMeans,
 *             2026 (idea)
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64
 */

constexpr unsigned ALL = 0xffffffffu;
constexpr int THREADS = 256;
constexpr int ROWS = 128;                        // points of a tile of kmeans_assign
constexpr int PER = sizeof(real) == 4 ? 8 : 4;   // centres of a thread
constexpr int COLS = 16 * PER;
constexpr int DEPTH = 16;                        // features at a time
constexpr real FAR = real(sizeof(real) == 4 ? 3e38 : 1e300);  // more than any score
constexpr int PITCH = 4;                         // numbers between rows of shared memory
constexpr int RUN = 1024;                        // points that a warp counts
constexpr int TRIED = 16;                        // centres that kmeans_potentials compares with, at most
constexpr int BLOCK = 1024;                      // points between which k-means++ draws

// ---- sums over a block ----------------------------------------------------------------------------------

__device__ __forceinline__ double block_sum(double v, double* shared) {
#pragma unroll
  for (int by = 16; by > 0; by /= 2) v += __shfl_xor_sync(ALL, v, by);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
  __syncthreads();
  double total = 0.0;
#pragma unroll
  for (int w = 0; w < THREADS / 32; ++w) total += shared[w];
  return total;
}

// The sum over the threads before this one.
template <class T> __device__ __forceinline__ T block_before(T v, T* shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  T upto = v;
#pragma unroll
  for (int by = 1; by < 32; by *= 2) {
    const T other = __shfl_up_sync(ALL, upto, by);
    if (lane >= by) upto += other;
  }
  __syncthreads();
  if (lane == 31) shared[warp] = upto;
  __syncthreads();
  T base = T(0);
  for (int w = 0; w < warp; ++w) base += shared[w];
  return base + upto - v;
}

// Threads as rows of `width` columns for a pass over features from `first` on; column -1 has nothing to do.
struct Seat {
  int column, row, rows, width;
  __device__ Seat(int features, int first) {
    width = features - first < THREADS ? features - first : THREADS;
    rows = THREADS / width;
    row = threadIdx.x / width;
    column = row < rows ? (int)threadIdx.x % width : -1;
  }
};

// Sums over the rows of a pass, at row 0.
__device__ __forceinline__ double over_rows(double v, const Seat& seat, double* shared) {
  __syncthreads();
  shared[threadIdx.x] = v;
  __syncthreads();
  double total = 0.0;
  if (seat.row == 0)
    for (int r = 0; r < seat.rows; ++r) total += shared[r * seat.width + seat.column];
  return total;
}

// ---- the data -------------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS) kmeans_moments(
    const real* __restrict__ x,       // [N, D]
    double* __restrict__ part,        // [blocks, 2, D]: sums of the differences to the first point, and of their squares
    int64_t n, int dims) {
  __shared__ double shared[THREADS];
  const int64_t first = (int64_t)blockIdx.x * BLOCK, last = first + BLOCK < n ? first + BLOCK : n;
  for (int from = 0; from < dims; from += THREADS) {
    const Seat seat(dims, from);
    const int d = from + seat.column;
    double sum = 0.0, square = 0.0;
    if (seat.column >= 0)
      for (int64_t i = first + seat.row; i < last; i += seat.rows) {
        const double off = (double)x[i * dims + d] - (double)x[d];
        sum += off;
        square += off * off;
      }
    sum = over_rows(sum, seat, shared);
    square = over_rows(square, seat, shared);
    if (seat.row == 0) {
      part[(int64_t)blockIdx.x * 2 * dims + d] = sum;
      part[((int64_t)blockIdx.x * 2 + 1) * dims + d] = square;
    }
  }
}

// ---- an iteration ---------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS) kmeans_assign(
    const real* __restrict__ x,                                    // [N, D]
    const real* __restrict__ mean,                                 // [D]
    const real* __restrict__ centres, const real* __restrict__ half,  // [K, D] less the mean, [K]: |c|^2 / 2
    int32_t* __restrict__ labels, int32_t* __restrict__ state,     // [N]
    int64_t n, int dims, int count) {
  using quad = vec<real, 16 / sizeof(real)>;
  constexpr int WIDE = 16 / sizeof(real);
  __shared__ __align__(16) real xs[DEPTH][ROWS + PITCH];
  __shared__ __align__(16) real cs[DEPTH][COLS + PITCH];
  if (state[0] != 0) return;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const int64_t first = (int64_t)blockIdx.x * ROWS;
  real best[8];
  int label[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    best[i] = FAR;
    label[i] = 0;
  }
  for (int col = 0; col < count; col += COLS) {
    real dot[8][PER];
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < PER; ++j) dot[i][j] = real(0);
    for (int from = 0; from < dims; from += DEPTH) {
      const int d = from + tx;
      const real less = d < dims ? mean[d] : real(0);
#pragma unroll
      for (int r = 0; r < ROWS; r += 16) {
        const int64_t i = first + r + ty;
        xs[tx][r + ty] = d < dims && i < n ? x[i * dims + d] - less : real(0);
      }
#pragma unroll
      for (int r = 0; r < COLS; r += 16) {
        const int k = col + r + ty;
        cs[tx][r + ty] = d < dims && k < count ? centres[(int64_t)k * dims + d] : real(0);
      }
      __syncthreads();
#pragma unroll
      for (int s = 0; s < DEPTH; ++s) {
        real a[8], c[PER];
#pragma unroll
        for (int i = 0; i < 8; i += WIDE) {
          const quad v = *reinterpret_cast<const quad*>(&xs[s][8 * ty + i]);
#pragma unroll
          for (int e = 0; e < WIDE; ++e) a[i + e] = v.v[e];
        }
#pragma unroll
        for (int j = 0; j < PER; j += WIDE) {
          const quad v = *reinterpret_cast<const quad*>(&cs[s][PER * tx + j]);
#pragma unroll
          for (int e = 0; e < WIDE; ++e) c[j + e] = v.v[e];
        }
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
          for (int j = 0; j < PER; ++j) dot[i][j] += a[i] * c[j];
      }
      __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < PER; ++j) {
      const int k = col + PER * tx + j;
      const real h = k < count ? half[k] : FAR;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const real score = h - dot[i][j];
        if (score < best[i]) {
          best[i] = score;
          label[i] = k;
        }
      }
    }
  }
  bool changed = false;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int by = 8; by > 0; by /= 2) {
      const real other = __shfl_xor_sync(ALL, best[i], by);
      const int its = __shfl_xor_sync(ALL, label[i], by);
      if (other < best[i] || (other == best[i] && its < label[i])) {
        best[i] = other;
        label[i] = its;
      }
    }
    const int64_t at = first + 8 * ty + i;
    if (tx == 0 && at < n) {
      changed |= labels[at] != label[i];
      labels[at] = label[i];
    }
  }
  if (__syncthreads_or(changed) && threadIdx.x == 0) atomicOr(state + 2, 1);
}

// A warp counts the labels of a run of points, 32 at a time.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_count(
    const int32_t* __restrict__ labels, int32_t* __restrict__ tally,  // [N], [runs, K]
    const int32_t* __restrict__ state, int64_t n, int runs, int count) {
  const int lane = threadIdx.x % 32, run = blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
  if (state[0] != 0 || run >= runs) return;
  int32_t* row = tally + (int64_t)run * count;
  for (int k = lane; k < count; k += 32) row[k] = 0;
  __syncwarp();
  for (int r = 0; r < RUN; r += 32) {
    const int64_t i = (int64_t)run * RUN + r + lane;
    const int label = i < n ? labels[i] : -1;
    const unsigned same = __match_any_sync(ALL, label);
    if (label >= 0 && __ffs(same) - 1 == lane) row[label] += __popc(same);
    __syncwarp();
  }
}

// A cluster's counts become the numbers of its points in the runs before.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_scan(
    int32_t* __restrict__ tally, int32_t* __restrict__ total,  // [runs, K], [K]
    const int32_t* __restrict__ state, int runs, int count) {
  __shared__ int shared[THREADS / 32];
  if (state[0] != 0) return;
  const int each = (runs + THREADS - 1) / THREADS;
  const int first = threadIdx.x * each < runs ? threadIdx.x * each : runs;
  const int last = first + each < runs ? first + each : runs;
  int own = 0;
  for (int r = first; r < last; ++r) own += tally[(int64_t)r * count + blockIdx.x];
  int upto = block_before(own, shared);
  if (threadIdx.x == THREADS - 1) total[blockIdx.x] = upto + own;
  for (int r = first; r < last; ++r) {
    int32_t* at = tally + (int64_t)r * count + blockIdx.x;
    const int here = *at;
    *at = upto;
    upto += here;
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) kmeans_starts(
    const int32_t* __restrict__ total, int32_t* __restrict__ start,  // [K], [K + 1]
    const int32_t* __restrict__ state, int count) {
  __shared__ int shared[THREADS / 32];
  if (state[0] != 0) return;
  const int each = (count + THREADS - 1) / THREADS;
  const int first = threadIdx.x * each < count ? threadIdx.x * each : count;
  const int last = first + each < count ? first + each : count;
  int own = 0;
  for (int k = first; k < last; ++k) own += total[k];
  int upto = block_before(own, shared);
  for (int k = first; k < last; ++k) {
    start[k] = upto;
    upto += total[k];
  }
  if (threadIdx.x == THREADS - 1) start[count] = upto;
}

extern "C" __global__ void __launch_bounds__(THREADS) kmeans_scatter(
    const int32_t* __restrict__ labels, int32_t* __restrict__ tally,  // [N], [runs, K]: is spent
    const int32_t* __restrict__ start, int32_t* __restrict__ order,   // [K + 1], [N]
    const int32_t* __restrict__ state, int64_t n, int runs, int count) {
  const int lane = threadIdx.x % 32, run = blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
  if (state[0] != 0 || run >= runs) return;
  int32_t* row = tally + (int64_t)run * count;
  for (int r = 0; r < RUN; r += 32) {
    const int64_t i = (int64_t)run * RUN + r + lane;
    const int label = i < n ? labels[i] : -1;
    const unsigned same = __match_any_sync(ALL, label);
    if (label >= 0) order[start[label] + row[label] + __popc(same & ((1u << lane) - 1))] = (int32_t)i;
    __syncwarp();
    if (label >= 0 && __ffs(same) - 1 == lane) row[label] += __popc(same);
    __syncwarp();
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) kmeans_sums(
    const real* __restrict__ x, const real* __restrict__ weight,              // [N, D], [N] or null
    const int32_t* __restrict__ order, const int32_t* __restrict__ start,     // [N], [K + 1]
    double* __restrict__ part,                                                // [K, pieces, D + 1]
    const int32_t* __restrict__ state, int dims, int pieces) {
  __shared__ double shared[THREADS];
  if (state[0] != 0) return;
  const int k = blockIdx.x / pieces, piece = blockIdx.x % pieces;
  const int64_t points = start[k + 1] - start[k];
  const int first = start[k] + (int)(points * piece / pieces), last = start[k] + (int)(points * (piece + 1) / pieces);
  double* out = part + (int64_t)blockIdx.x * (dims + 1);
  for (int from = 0; from <= dims; from += THREADS) {
    const Seat seat(dims + 1, from);
    const int d = from + seat.column;
    double sum = 0.0;
    if (seat.column >= 0)
      for (int at = first + seat.row; at < last; at += seat.rows) {
        const int64_t i = order[at];
        const double w = weight ? (double)weight[i] : 1.0;
        sum += d < dims ? w * (double)x[i * dims + d] : w;
      }
    sum = over_rows(sum, seat, shared);
    if (seat.row == 0) out[d] = sum;
  }
}

// The mean of each cluster, and how far it has moved. One without mass stays.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_update(
    const double* __restrict__ part,                                     // [K, pieces, D + 1]
    const double* __restrict__ mean,                                     // [D]
    double* __restrict__ centres, double* __restrict__ last_centres,     // [K, D]
    double* __restrict__ sums, double* __restrict__ shift,               // [K, D + 1], [K]
    real* __restrict__ near, real* __restrict__ half,                    // [K, D] less the mean, [K]
    const int32_t* __restrict__ state, int dims, int pieces) {
  __shared__ double shared[THREADS];
  __shared__ double mass_shared;
  if (state[0] != 0) return;
  const int64_t k = blockIdx.x;
  const double* own = part + k * pieces * (dims + 1);
  double mass = 0.0;
  for (int piece = threadIdx.x; piece < pieces; piece += THREADS) mass += own[(int64_t)piece * (dims + 1) + dims];
  mass = block_sum(mass, shared);
  if (threadIdx.x == 0) {
    mass_shared = mass;
    sums[k * (dims + 1) + dims] = mass;
  }
  __syncthreads();
  mass = mass_shared;
  double moved = 0.0, square = 0.0;
  for (int from = 0; from < dims; from += THREADS) {
    const Seat seat(dims, from);
    const int d = from + seat.column;
    double sum = 0.0;
    if (seat.column >= 0)
      for (int piece = seat.row; piece < pieces; piece += seat.rows) sum += own[(int64_t)piece * (dims + 1) + d];
    sum = over_rows(sum, seat, shared);
    if (seat.row == 0) {
      const double old = centres[k * dims + d], to = mass > 0.0 ? sum / mass : old;
      const real less = real(to - mean[d]);
      sums[k * (dims + 1) + d] = sum;
      last_centres[k * dims + d] = old;
      centres[k * dims + d] = to;
      near[k * dims + d] = less;
      moved += (to - old) * (to - old);
      square += (double)less * (double)less;
    }
  }
  moved = block_sum(moved, shared);
  square = block_sum(square, shared);
  if (threadIdx.x == 0) {
    shift[k] = moved;
    half[k] = real(0.5 * square);
  }
}

// 1: no label has changed; 2: the centres have hardly moved; 3: a cluster is empty, the host takes over.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_test(
    const double* __restrict__ shift, const double* __restrict__ sums,  // [K], [K, D + 1]
    int32_t* __restrict__ state, double tol, int dims, int count) {
  __shared__ double shared[THREADS / 32];
  if (state[0] != 0) return;
  double moved = 0.0;
  bool empty = false;
  for (int k = threadIdx.x; k < count; k += THREADS) {
    moved += shift[k];
    empty |= sums[(int64_t)k * (dims + 1) + dims] == 0.0;
  }
  moved = block_sum(moved, shared);
  empty = __syncthreads_or(empty);
  if (threadIdx.x == 0) {
    const int changed = state[2];
    state[0] = !changed ? 1 : empty ? 3 : moved <= tol ? 2 : 0;
    state[1] += 1;
    state[2] = 0;
  }
}

// ---- square distances -----------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS) kmeans_inertia(
    const real* __restrict__ x, const real* __restrict__ weight,  // [N, D], [N] or null
    const double* __restrict__ centres,                           // [K, D]
    const int32_t* __restrict__ labels,                           // [N]
    double* __restrict__ part, double* __restrict__ far,          // [blocks], [N] or null
    int64_t n, int dims) {
  __shared__ double shared[THREADS / 32];
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  double square = 0.0;
  if (i < n) {
    const double* centre = centres + (int64_t)labels[i] * dims;
    for (int d = 0; d < dims; ++d) {
      const double off = (double)x[i * dims + d] - centre[d];
      square += off * off;
    }
    const double w = weight ? (double)weight[i] : 1.0;
    if (far) far[i] = w > 0.0 ? square : 0.0;
    square *= w;
  }
  square = block_sum(square, shared);
  if (threadIdx.x == 0) part[blockIdx.x] = square;
}

// k-means++: the first centre is the last one chosen, and lowers `closest` for good; those after it are tried.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_potentials(
    const real* __restrict__ x, const real* __restrict__ weight,  // [N, D], [N] or null
    const real* __restrict__ tried,                               // [count, D]
    real* __restrict__ closest, double* __restrict__ part,        // [N], [blocks, count - 1]
    int64_t n, int dims, int count) {
  __shared__ double shared[THREADS / 32];
  double sum[TRIED];
#pragma unroll
  for (int c = 0; c < TRIED; ++c) sum[c] = 0.0;
  for (int at = threadIdx.x; at < BLOCK; at += THREADS) {
    const int64_t i = (int64_t)blockIdx.x * BLOCK + at;
    if (i >= n) break;
    real square[TRIED];
#pragma unroll
    for (int c = 0; c < TRIED; ++c) square[c] = real(0);
    for (int d = 0; d < dims; ++d) {
      const real own = x[i * dims + d];
#pragma unroll
      for (int c = 0; c < TRIED; ++c)
        if (c < count) {
          const real off = own - tried[(int64_t)c * dims + d];
          square[c] += off * off;
        }
    }
    const real low = square[0] < closest[i] ? square[0] : closest[i];
    closest[i] = low;
    const double w = weight ? (double)weight[i] : 1.0;
#pragma unroll
    for (int c = 1; c < TRIED; ++c) sum[c] += w * (double)(square[c] < low ? square[c] : low);
  }
#pragma unroll
  for (int c = 1; c < TRIED; ++c)
    if (c < count) {
      const double total = block_sum(sum[c], shared);
      if (threadIdx.x == 0) part[(int64_t)blockIdx.x * (count - 1) + c - 1] = total;
    }
}

// The points at which the running sum within a block of points exceeds `rest`; the last one with a share where none does.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_draw(
    const real* __restrict__ x, const real* __restrict__ weight, const real* __restrict__ closest,  // [N, D], [N], [N]
    const real* __restrict__ last,                                     // [D]: the last centre chosen
    const int64_t* __restrict__ block, const double* __restrict__ rest,  // [trials]
    int64_t* __restrict__ drawn,                                       // [trials]
    int64_t n, int dims) {
  constexpr int EACH = BLOCK / THREADS;
  __shared__ double shared[THREADS / 32];
  __shared__ int found, fallback;
  const int64_t first = block[blockIdx.x] * BLOCK + threadIdx.x * EACH;
  double share[EACH], own = 0.0;
#pragma unroll
  for (int e = 0; e < EACH; ++e) {
    const int64_t i = first + e;
    share[e] = 0.0;
    if (i >= n) continue;
    real square = real(0);
    for (int d = 0; d < dims; ++d) {
      const real off = x[i * dims + d] - last[d];
      square += off * off;
    }
    const real low = square < closest[i] ? square : closest[i];
    share[e] = (weight ? (double)weight[i] : 1.0) * (double)low;
    own += share[e];
  }
  if (threadIdx.x == 0) {
    found = BLOCK;
    fallback = 0;
  }
  double upto = block_before(own, shared);
#pragma unroll
  for (int e = 0; e < EACH; ++e) {
    if (!(share[e] > 0.0)) continue;
    upto += share[e];
    atomicMax(&fallback, (int)threadIdx.x * EACH + e);
    if (upto > rest[blockIdx.x]) atomicMin(&found, (int)threadIdx.x * EACH + e);
  }
  __syncthreads();
  if (threadIdx.x == 0) drawn[blockIdx.x] = block[blockIdx.x] * BLOCK + (found < BLOCK ? found : fallback);
}

// k-means||: the points whose random numbers (splitmix64) are below `scale` times weight and distance, in any order.
extern "C" __global__ void __launch_bounds__(THREADS) kmeans_sample(
    const double* __restrict__ closest, const real* __restrict__ weight,  // [N], [N] or null
    int32_t* __restrict__ chosen, int32_t* __restrict__ found,            // [N], [1]: how many
    int64_t n, double scale, int64_t seed) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= n) return;
  uint64_t z = (uint64_t)seed + (uint64_t)(i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  const double share = weight ? closest[i] * (double)weight[i] : closest[i];
  if ((double)(z >> 11) * 0x1p-53 < scale * share) chosen[atomicAdd(found, 1)] = (int32_t)i;
}
