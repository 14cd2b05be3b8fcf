/* kmeans_mma.cu: the nearest centres of points of many features, on the tensor cores, as exact as float32.
 *
 * formula     as kmeans_assign of kmeans.cu: label_i = argmin_k |c_k|^2 / 2 - <x_i, c_k>; each product of three in TF32, of
 *             numbers in two parts: high high + high low + low high
 * layout      x [N, D], centres [K, D] less the mean; shared memory by features, two tiles in turn
 * launch      256 threads, a tile of 128 points against 64 centres at a time, a warp 32 x 32, 16 features at a time
 * cost        6 N K D flops of TF32, 2 N K D of the product; reads x once for each 64 centres, from L2 but for the first
 *             time. Predicted, not measured, for N = 10^6, D = 64, K = 256 on an H100: 98 GFLOP at 250 TFLOP/s 0.4 ms
 *             (kmeans_assign: 33 GFLOP at 45 TFLOP/s 0.73 ms)
 * order       8 features at a time inside the instruction, small products first, sums of 8 in order; ties to the lowest k:
 *             the same bits on every run
 * measured    not measured
 * hot         kmeans_assign_mma
 * source      split of the operands: M. Fasi et al., Numerical behavior of NVIDIA tensor cores, 2021; fragments: PTX ISA,
 *             section 9.7.14
 * arch        80 86 89 90 100 120
 * specialise  real = float32
 */
#include "tf32.cuh"

constexpr unsigned ALL = 0xffffffffu;
constexpr int THREADS = 256;
constexpr int ROWS = 128;  // points of a tile: four warps
constexpr int COLS = 64;   // centres of a tile: two warps
constexpr int DEPTH = 16;  // features at a time
constexpr int PITCH = 8;   // numbers between rows of shared memory: the lanes of a fragment meet different banks
constexpr int XS = ROWS / 16, CS = COLS / 16;  // numbers that a thread brings
constexpr real FAR = real(3e38);               // more than any score

// A thread's numbers of the next tile, on their way to shared memory.
struct Coming {
  real x[XS], c[CS];
};

__device__ __forceinline__ Coming bring(const real* x, const real* mean, const real* centres, int64_t first, int64_t n,
                                        int col, int count, int from, int dims) {
  const int d = from + threadIdx.x % 16, row = threadIdx.x / 16;
  const real less = d < dims ? mean[d] : real(0);
  Coming coming;
#pragma unroll
  for (int r = 0; r < XS; ++r) {
    const int64_t i = first + row + 16 * r;
    coming.x[r] = d < dims && i < n ? x[i * dims + d] - less : real(0);
  }
#pragma unroll
  for (int r = 0; r < CS; ++r) {
    const int k = col + row + 16 * r;
    coming.c[r] = d < dims && k < count ? centres[(int64_t)k * dims + d] : real(0);
  }
  return coming;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) kmeans_assign_mma(
    const real* __restrict__ x,                                        // [N, D]
    const real* __restrict__ mean,                                     // [D]
    const real* __restrict__ centres, const real* __restrict__ half,   // [K, D] less the mean, [K]: |c|^2 / 2
    int32_t* __restrict__ labels, int32_t* __restrict__ state,         // [N]
    int64_t n, int dims, int count) {
  __shared__ real xs[2][DEPTH][ROWS + PITCH];
  __shared__ real cs[2][DEPTH][COLS + PITCH];
  __shared__ real others[ROWS];
  __shared__ int other_labels[ROWS];
  if (state[0] != 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int row = warp % 4 * 32 + g, column = warp / 4 * 32;  // of the warp's part; lane's first row
  const int64_t first = (int64_t)blockIdx.x * ROWS;
  const int depths = (dims + DEPTH - 1) / DEPTH, steps = (count + COLS - 1) / COLS * depths;
  real best[4], sum[2][4][4];
  int label[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    best[r] = FAR;
    label[r] = 0;
  }
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[m][j][e] = real(0);
  Coming coming = bring(x, mean, centres, first, n, 0, count, 0, dims);
  for (int step = 0; step < steps; ++step) {
    const int now = step % 2;
#pragma unroll
    for (int r = 0; r < XS; ++r) xs[now][threadIdx.x % 16][threadIdx.x / 16 + 16 * r] = coming.x[r];
#pragma unroll
    for (int r = 0; r < CS; ++r) cs[now][threadIdx.x % 16][threadIdx.x / 16 + 16 * r] = coming.c[r];
    __syncthreads();  // also: all are done with the tile before the last
    if (step + 1 < steps) {
      const int col = (step + 1) / depths * COLS, from = (step + 1) % depths * DEPTH;
      coming = bring(x, mean, centres, first, n, col, count, from, dims);
    }
#pragma unroll 1
    for (int s = 0; s < DEPTH; s += 8) {
      unsigned high[4][2], low[4][2];
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) split(cs[now][s + t + 4 * e][column + 8 * j + g], high[j][e], low[j][e]);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        unsigned x_high[4], x_low[4];
#pragma unroll
        for (int e = 0; e < 4; ++e)
          split(xs[now][s + t + 4 * (e / 2)][row + 16 * m + 8 * (e % 2)], x_high[e], x_low[e]);
        real part[4][4] = {};
#pragma unroll
        for (int j = 0; j < 4; ++j) mma_m16n8k8_tf32(part[j], x_low, high[j], part[j]);
#pragma unroll
        for (int j = 0; j < 4; ++j) mma_m16n8k8_tf32(part[j], x_high, low[j], part[j]);
#pragma unroll
        for (int j = 0; j < 4; ++j) mma_m16n8k8_tf32(part[j], x_high, high[j], part[j]);
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) sum[m][j][e] += part[j][e];
      }
    }
    if ((step + 1) % depths != 0) continue;
    const int col = step / depths * COLS + column + 2 * t;
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int k = col + 8 * j + e % 2;
        const real h = k < count ? half[k] : FAR;
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          const int r = 2 * m + e / 2;
          const real score = h - sum[m][j][e];
          if (score < best[r]) {
            best[r] = score;
            label[r] = k;
          }
          sum[m][j][e] = real(0);
        }
      }
  }
#pragma unroll
  for (int r = 0; r < 4; ++r)
#pragma unroll
    for (int by = 2; by > 0; by /= 2) {
      const real other = __shfl_xor_sync(ALL, best[r], by);
      const int its = __shfl_xor_sync(ALL, label[r], by);
      if (other < best[r] || (other == best[r] && its < label[r])) {
        best[r] = other;
        label[r] = its;
      }
    }
  if (warp >= 4 && t == 0)
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      others[row + 8 * r] = best[r];
      other_labels[row + 8 * r] = label[r];
    }
  __syncthreads();
  bool changed = false;
  if (warp < 4 && t == 0)
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int64_t i = first + row + 8 * r;
      if (i >= n) continue;
      const real other = others[row + 8 * r];
      const int its = other_labels[row + 8 * r];
      const int to = other < best[r] || (other == best[r] && its < label[r]) ? its : label[r];
      changed |= labels[i] != to;
      labels[i] = to;
    }
  if (__syncthreads_or(changed) && threadIdx.x == 0) atomicOr(state + 2, 1);
}
