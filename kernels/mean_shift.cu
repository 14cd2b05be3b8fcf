/* mean_shift.cu: every point climbs to a mode of the density of all points, and modes that are close become one.
 *
 * formula     mean_shift_ascend: y <- y + sum w_i (x_i - y) / sum w_i, w_i = 1 where |x_i - y|^2 <= reach (flat) or
 *             exp(scale |x_i - y|^2) there (Gaussian), until a step is at most `shift` long (squared).
 *             mean_shift_merge: ends in turn; each joins the nearest of the modes so far, if its square distance is below
 *             `square`, or is a new mode
 * layout      points [DIMS, N] sorted by the number of their cell, cells [N]; three cells side by side along the last axis
 *             are one range of points. The dimensions of the grid come first; those past the data's are zero
 * launch      mean_shift_ascend: a warp for each point, 8 a block. mean_shift_merge: one block of 1024 threads
 * cost        a step of a point reads its candidates from L1 or L2, 4 DIMS bytes each in float32, and takes 3 DIMS + 8 flops
 *             for each of them (Gaussian: and one exp), 5 (DIMS + 1) shuffles, and 2 binary searches where it enters a cell.
 *             Predicted, not measured: 256 x 256 pixels of 5 features, bandwidth 8, 30 steps of 300 candidates: 6e8
 *             candidates, 15 GFLOP: 3 ms on an H100, 3 ms more for 2,000 modes. mean_shift_merge: N K DIMS 3 flops on one
 *             multiprocessor. Two launches
 * order       candidates by 32 lanes in turn, lanes by a tree; ends in the order of the points: the same bits on every run
 * measured    not measured
 * hot         mean_shift_ascend
 * source      D. Comaniciu, P. Meer, Mean shift: a robust approach toward feature space analysis, 2002
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64; DIMS = 1 2 3 4 5 6 8 16 32
 */

constexpr unsigned ALL = 0xffffffffu;
constexpr int WARPS = 8;
constexpr int MERGERS = 1024;
constexpr int AXES = DIMS < 3 ? DIMS : 3;

// How many points are in cells before one.
__device__ __forceinline__ int before(const int64_t* cells, int points, int64_t cell) {
  int low = 0, high = points;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (cells[middle] < cell)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

__device__ __forceinline__ float power(float x) { return expf(x); }
__device__ __forceinline__ double power(double x) { return exp(x); }

extern "C" __global__ void __launch_bounds__(WARPS * 32) mean_shift_ascend(
    const real* __restrict__ points,    // [DIMS, N]
    const int64_t* __restrict__ cells,  // [N]
    const int64_t* __restrict__ order,  // [N]: which points they are
    const int64_t* __restrict__ steps,  // [n_axes + n_rows]: of a cell's number along the axes; to the rows around a cell
    const double* __restrict__ sides,   // [2, n_axes]: where cells begin, how wide they are
    real* __restrict__ ends,            // [N, DIMS]: in the order of the points given
    int32_t* __restrict__ counts,       // [2]: the most steps, and how many points have not arrived
    int n, int n_axes, int n_rows, int gaussian, int max_iter, double reach, double scale, double shift) {
  const int lane = threadIdx.x % 32;
  const int i = blockIdx.x * WARPS + threadIdx.x / 32;
  if (i >= n) return;
  real y[DIMS];
#pragma unroll
  for (int d = 0; d < DIMS; ++d) y[d] = points[(int64_t)d * n + i];
  const real limit = real(reach), factor = real(scale);
  int64_t here = 0;
  int first = 0, last = 0, count = 0;
  bool left = true;
  while (left && count < max_iter) {
    int64_t cell = 0;
#pragma unroll
    for (int a = 0; a < AXES; ++a)
      if (a < n_axes) cell += (int64_t)floor(((double)y[a] - sides[a]) / sides[n_axes + a]) * steps[a];
    if (lane < n_rows && (count == 0 || cell != here)) {
      first = before(cells, n, cell + steps[n_axes + lane] - 1);
      last = before(cells, n, cell + steps[n_axes + lane] + 2);
    }
    here = cell;
    real sum[DIMS], total = real(0);
#pragma unroll
    for (int d = 0; d < DIMS; ++d) sum[d] = real(0);
    for (int row = 0; row < n_rows; ++row) {
      const int end = __shfl_sync(ALL, last, row);
      for (int t = __shfl_sync(ALL, first, row) + lane; t < end; t += 32) {
        real off[DIMS], q = real(0);
#pragma unroll
        for (int d = 0; d < DIMS; ++d) {
          off[d] = points[(int64_t)d * n + t] - y[d];
          q += off[d] * off[d];
        }
        if (!(q <= limit)) continue;
        const real w = gaussian ? power(factor * q) : real(1);
        total += w;
#pragma unroll
        for (int d = 0; d < DIMS; ++d) sum[d] += w * off[d];
      }
    }
#pragma unroll
    for (int by = 16; by > 0; by /= 2) {
      total += __shfl_xor_sync(ALL, total, by);
#pragma unroll
      for (int d = 0; d < DIMS; ++d) sum[d] += __shfl_xor_sync(ALL, sum[d], by);
    }
    ++count;
    double moved = 0.0;
#pragma unroll
    for (int d = 0; d < DIMS; ++d) {
      const real to = total > real(0) ? y[d] + sum[d] / total : y[d];
      const double by = (double)to - (double)y[d];
      moved += by * by;
      y[d] = to;
    }
    left = moved > shift;
  }
  if (lane == 0) {
    const int64_t to = order[i];
#pragma unroll
    for (int d = 0; d < DIMS; ++d) ends[to * DIMS + d] = y[d];
    atomicMax(counts, count);
    if (left) atomicAdd(counts + 1, 1);
  }
}

template <class T> __device__ __forceinline__ T square_distance(const T* a, const T* b) {
  T q = T(0);
#pragma unroll
  for (int d = 0; d < DIMS; ++d) q += (a[d] - b[d]) * (a[d] - b[d]);
  return q;
}

extern "C" __global__ void __launch_bounds__(MERGERS) mean_shift_merge(
    const real* __restrict__ ends,   // [N, DIMS]
    real* __restrict__ modes,        // [N, DIMS]: as many as there are
    int64_t* __restrict__ labels,    // [N]
    int32_t* __restrict__ counts,    // [1]: how many modes
    int n, double square) {
  __shared__ real newest[DIMS];
  __shared__ int next;
  int found = 0;
  for (int64_t chunk = 0; chunk < n; chunk += MERGERS) {
    const int64_t i = chunk + threadIdx.x;
    const bool there = i < n;
    real y[DIMS], least = real(square);
    int best = -1;
#pragma unroll
    for (int d = 0; d < DIMS; ++d) y[d] = there ? ends[i * DIMS + d] : real(0);
    for (int k = 0; k < found; ++k) {
      const real q = square_distance(y, modes + (int64_t)k * DIMS);
      if (q < least) {
        least = q;
        best = k;
      }
    }
    for (;;) {
      if (threadIdx.x == 0) next = MERGERS;
      __syncthreads();
      if (there && best < 0) atomicMin(&next, (int)threadIdx.x);
      __syncthreads();
      const int creator = next;
      if (creator == MERGERS) break;
      if ((int)threadIdx.x == creator) {
        best = found;
        least = real(0);
#pragma unroll
        for (int d = 0; d < DIMS; ++d) newest[d] = modes[(int64_t)found * DIMS + d] = y[d];
      }
      __syncthreads();
      if ((int)threadIdx.x > creator) {
        const real q = square_distance(y, newest);
        if (q < least) {
          least = q;
          best = found;
        }
      }
      ++found;
    }
    if (there) labels[i] = best;
    __syncthreads();
  }
  if (threadIdx.x == 0) counts[0] = found;
}
