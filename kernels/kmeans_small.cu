/* kmeans_small.cu: an iteration of Lloyd for few features and clusters in one pass over the points.
 *
 * formula     label_i = argmin_k |x_i - c_k|^2; sums of w_i x_i and w_i by cluster
 * layout      x [N, D]; part [K, blocks, D + 1] is what kmeans_update of kmeans.cu adds up. Each thread has a column of
 *             shared memory for its own sums, K (D + 1) rows of 64 numbers, so nothing is added by two threads
 * launch      64 threads, a fixed number of blocks for each N; shared memory 512 K (D + 1) + 8 K DIMS bytes, K (D + 1) <= 96
 * cost        reads x once; 3 N K D flops; a launch, and two of kmeans.cu. Predicted, not measured, for N = 262,144, D = 5,
 *             K = 8, float32 on an H100: 5.2 MB from L2, 8 points a thread of 500 cycles: 6 us, with kmeans_update and
 *             kmeans_test 15 us; 20 iterations 0.3 ms where the host keeps up
 * order       a thread's points by their numbers, 64 threads by a tree, then the blocks: the same bits on every run; ties
 *             to the lowest k
 * measured    not measured
 * hot         kmeans_small
 * source      S. P. Lloyd, Least squares quantization in PCM, 1982
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64; DIMS = 1 2 3 4 5 6 7 8
 */

constexpr unsigned ALL = 0xffffffffu;
constexpr int THREADS = 64;

extern "C" __global__ void __launch_bounds__(THREADS, 4) kmeans_small(
    const real* __restrict__ x, const real* __restrict__ weight,   // [N, DIMS], [N] or null
    const real* __restrict__ centres,                              // [K, DIMS]
    int32_t* __restrict__ labels, double* __restrict__ part,       // [N], [K, blocks, DIMS + 1]
    int32_t* __restrict__ state, int64_t n, int count) {
  extern __shared__ __align__(16) double space[];
  if (state[0] != 0) return;
  real* own = reinterpret_cast<real*>(space);
  double* sums = space + count * DIMS;
  for (int t = threadIdx.x; t < count * DIMS; t += THREADS) own[t] = centres[t];
  const int rows = count * (DIMS + 1);
  for (int r = 0; r < rows; ++r) sums[r * THREADS + threadIdx.x] = 0.0;
  __syncthreads();
  bool changed = false;
  for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS) {
    real p[DIMS];
#pragma unroll
    for (int d = 0; d < DIMS; ++d) p[d] = x[i * DIMS + d];
    real best = real(0);
    int label = -1;
    for (int k = 0; k < count; ++k) {
      real square = real(0);
#pragma unroll
      for (int d = 0; d < DIMS; ++d) {
        const real off = p[d] - own[k * DIMS + d];
        square += off * off;
      }
      if (label < 0 || square < best) {
        best = square;
        label = k;
      }
    }
    changed |= labels[i] != label;
    labels[i] = label;
    const double w = weight ? (double)weight[i] : 1.0;
    double* to = sums + label * (DIMS + 1) * THREADS + threadIdx.x;
#pragma unroll
    for (int d = 0; d < DIMS; ++d) to[d * THREADS] += w * (double)p[d];
    to[DIMS * THREADS] += w;
  }
  if (__syncthreads_or(changed) && threadIdx.x == 0) atomicOr(state + 2, 1);
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int r = threadIdx.x / 32; r < rows; r += THREADS / 32) {
    double v = sums[r * THREADS + lane] + sums[r * THREADS + 32 + lane];
#pragma unroll
    for (int by = 16; by > 0; by /= 2) v += __shfl_xor_sync(ALL, v, by);
    const int k = r / (DIMS + 1), d = r % (DIMS + 1);
    if (lane == 0) part[((int64_t)k * gridDim.x + blockIdx.x) * (DIMS + 1) + d] = v;
  }
}
