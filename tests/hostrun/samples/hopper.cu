// C[M][N] = A[M][K] * B[N][K]^T by one warpgroup a 64 x 64 tile: TMA, mbarrier and wgmma.
// The BUG_ macros plant the faults that tests/test_hostrun.py expects to be found.
extern "C" __global__ void __launch_bounds__(128)
    gemm_hopper(const __grid_constant__ cv3_tmap a, const __grid_constant__ cv3_tmap b,
                float* __restrict__ c, int m, int n, int k) {
  extern __shared__ __align__(1024) unsigned char tiles[];
  __shared__ __align__(8) unsigned long long full[2];
  constexpr int OPERAND = 64 * 128, STAGE = 2 * OPERAND;
  int t = threadIdx.x, m0 = blockIdx.y * 64, n0 = blockIdx.x * 64, steps = k / 64;
  float d[32] = {};
  if (t == 0) {
    mbar_init(&full[0], 1);
    mbar_init(&full[1], 1);
  }
  __syncthreads();
  auto load = [&](int step) {
    int stage = step & 1;
    mbar_expect_tx(&full[stage], STAGE);
    tma_load_2d(tiles + stage * STAGE, &a, &full[stage], step * 64, m0);
    tma_load_2d(tiles + stage * STAGE + OPERAND, &b, &full[stage], step * 64, n0);
  };
  if (t == 0) load(0);
  for (int step = 0; step < steps; ++step) {
    if (t == 0 && step + 1 < steps) load(step + 1);
    int stage = step & 1;
#ifndef BUG_MISSING_WAIT
    mbar_wait(&full[stage], (step >> 1) & 1);
#endif
    wgmma_fence();
    for (int i = 0; i < 4; ++i) {
      const unsigned char* tile = tiles + stage * STAGE + i * 32;
      wgmma_m64n64k16_bf16(d, tile, tile + OPERAND);
    }
    wgmma_commit();
#ifndef BUG_MISSING_WGMMA_WAIT
    wgmma_wait(0);
#endif
    __syncthreads();
  }
  int warp = t >> 5, lane = t & 31;
  for (int i = 0; i < 32; ++i) {
    int row = m0 + 16 * warp + (lane >> 2) + 8 * (i >> 1 & 1);
    int column = n0 + 8 * (i >> 2) + 2 * (lane & 3) + (i & 1);
    if (row < m && column < n) c[row * n + column] = d[i];
  }
}
