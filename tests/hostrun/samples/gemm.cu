// C[M][N] = A[M][K] * B[K][N], one thread an element, tiles in shared memory.
// The BUG_ macros plant the faults that tests/test_hostrun.py expects to be found.
constexpr int TILE = 16;

extern "C" __global__ void __launch_bounds__(TILE* TILE)
    gemm(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int m,
         int n, int k) {
  __shared__ float as[TILE][TILE + 1];
  __shared__ float bs[TILE][TILE];
  int tx = threadIdx.x, ty = threadIdx.y;
  int row = blockIdx.y * TILE + ty, column = blockIdx.x * TILE + tx;
  float sum = 0.0f;
  for (int k0 = 0; k0 < k; k0 += TILE) {
    as[ty][tx] = row < m && k0 + tx < k ? a[row * k + k0 + tx] : 0.0f;
    bs[ty][tx] = k0 + ty < k && column < n ? b[(k0 + ty) * n + column] : 0.0f;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < TILE; ++i) sum += as[ty][i] * bs[i][tx];
#ifndef BUG_MISSING_BARRIER
    __syncthreads();
#endif
  }
#ifdef BUG_WRITE_OUTSIDE
  c[row * n + column] = sum;
#elif defined(BUG_UNWRITTEN)
  if (row < m && column < n - 1) c[row * n + column] = sum;
#elif defined(BUG_WRITE_CONST)
  if (row < m && column < n) const_cast<float*>(a)[row * k] = c[row * n + column] = sum;
#else
  if (row < m && column < n) c[row * n + column] = sum;
#endif
}
