// Tensor-core tiles: C[M][N] = A[M][K] * B[N][K]^T with float sums.
// The BUG_ macros plant the faults that tests/test_hostrun.py expects to be found.
template <class Multiply>
__device__ void tile_gemm(const unsigned short* a, const unsigned short* b, float* c, int n, int k,
                          Multiply multiply) {
  int lane = threadIdx.x, group = lane >> 2, member = lane & 3;
  int m0 = blockIdx.y * 16, n0 = blockIdx.x * 8;
  float d[4] = {};
  for (int k0 = 0; k0 < k; k0 += 16) {
    unsigned fa[4], fb[2];
    for (int i = 0; i < 4; ++i) {
      int row = m0 + group + 8 * (i & 1), column = k0 + 2 * member + 8 * (i >> 1);
      fa[i] = *reinterpret_cast<const unsigned*>(&a[row * k + column]);
    }
    for (int i = 0; i < 2; ++i)
      fb[i] = *reinterpret_cast<const unsigned*>(&b[(n0 + group) * k + k0 + 2 * member + 8 * i]);
    multiply(d, fa, fb);
  }
  for (int i = 0; i < 4; ++i)
    c[(m0 + group + 8 * (i >> 1)) * n + n0 + 2 * member + (i & 1)] = d[i];
}

extern "C" __global__ void __launch_bounds__(32)
    mma_f16(const unsigned short* a, const unsigned short* b, float* c, int n, int k) {
  tile_gemm(a, b, c, n, k, [](float(&d)[4], const unsigned(&x)[4], const unsigned(&y)[2]) {
    mma_m16n8k16_f16(d, x, y, d);
  });
}

extern "C" __global__ void __launch_bounds__(32)
    mma_bf16(const unsigned short* a, const unsigned short* b, float* c, int n, int k) {
  tile_gemm(a, b, c, n, k, [](float(&d)[4], const unsigned(&x)[4], const unsigned(&y)[2]) {
    mma_m16n8k16_bf16(d, x, y, d);
  });
}

extern "C" __global__ void __launch_bounds__(32)
    mma_tf32(const float* a, const float* b, float* c, int n, int k) {
  int lane = threadIdx.x, group = lane >> 2, member = lane & 3;
  int m0 = blockIdx.y * 16, n0 = blockIdx.x * 8;
  float d[4] = {};
  for (int k0 = 0; k0 < k; k0 += 8) {
    unsigned fa[4], fb[2];
    for (int i = 0; i < 4; ++i) {
      int row = m0 + group + 8 * (i & 1), column = k0 + member + 4 * (i >> 1);
      fa[i] = __float_as_uint(f32_to_tf32(a[row * k + column]));
    }
    for (int i = 0; i < 2; ++i)
      fb[i] = __float_as_uint(f32_to_tf32(b[(n0 + group) * k + k0 + member + 4 * i]));
    mma_m16n8k8_tf32(d, fa, fb, d);
  }
  for (int i = 0; i < 4; ++i)
    c[(m0 + group + 8 * (i >> 1)) * n + n0 + 2 * member + (i & 1)] = d[i];
}

// 64 x 64 tiles by four warps, cp.async in two stages, operands by ldmatrix. K: a multiple of 32;
// rows beyond M and N read as zero.
extern "C" __global__ void __launch_bounds__(128)
    gemm_pipelined(const unsigned short* __restrict__ a, const unsigned short* __restrict__ b,
                   float* __restrict__ c, int m, int n, int k) {
  constexpr int STEP = 32, PITCH = STEP + 8;  // the padding avoids bank conflicts of ldmatrix
  __shared__ __align__(16) unsigned short as[2][64 * PITCH];
  __shared__ __align__(16) unsigned short bs[2][64 * PITCH];
  int t = threadIdx.x, lane = t & 31, warp = t >> 5;
  int m0 = blockIdx.y * 64, n0 = blockIdx.x * 64;
  float d[8][4] = {};
  auto load = [&](int stage, int k0) {
    for (int i = t; i < 64 * STEP / 8; i += 128) {
      int row = i >> 2, column = (i & 3) * 8;
      cp_async16(&as[stage][row * PITCH + column], &a[(m0 + row) * k + k0 + column], m0 + row < m);
      cp_async16(&bs[stage][row * PITCH + column], &b[(n0 + row) * k + k0 + column], n0 + row < n);
    }
    cp_async_commit();
  };
  load(0, 0);
  int steps = k / STEP;
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps)
      load((step + 1) & 1, (step + 1) * STEP);
    else
      cp_async_commit();
#ifndef BUG_MISSING_WAIT
    cp_async_wait<1>();
#endif
    __syncthreads();
    const unsigned short* at = as[step & 1];
    const unsigned short* bt = bs[step & 1];
    for (int kk = 0; kk < STEP; kk += 16) {
      unsigned fa[4];
      ldmatrix_x4(fa, &at[(warp * 16 + (lane & 15)) * PITCH + kk + (lane >> 4) * 8]);
      for (int nn = 0; nn < 64; nn += 16) {
        unsigned fb[4];
        int row = nn + (lane & 7) + (lane >> 4) * 8, column = kk + ((lane >> 3) & 1) * 8;
        ldmatrix_x4(fb, &bt[row * PITCH + column]);
        unsigned left[2] = {fb[0], fb[1]}, right[2] = {fb[2], fb[3]};
        mma_m16n8k16_bf16(d[nn / 8], fa, left, d[nn / 8]);
        mma_m16n8k16_bf16(d[nn / 8 + 1], fa, right, d[nn / 8 + 1]);
      }
    }
#ifndef BUG_MISSING_BARRIER
    __syncthreads();
#endif
  }
  for (int nn = 0; nn < 8; ++nn) {
    for (int i = 0; i < 4; ++i) {
      int row = m0 + warp * 16 + (lane >> 2) + 8 * (i >> 1);
      int column = n0 + nn * 8 + 2 * (lane & 3) + (i & 1);
      if (row < m && column < n) c[row * n + column] = d[nn][i];
    }
  }
}

// 8 x 8 matrices with the lane's own row addresses: plain, and transposed on the way.
extern "C" __global__ void load_matrices(const unsigned short* in, unsigned* out) {
  __shared__ __align__(16) unsigned short s[32 * 8];
  int lane = threadIdx.x;
  for (int i = 0; i < 8; ++i) s[lane * 8 + i] = in[lane * 8 + i];
  __syncwarp();
  unsigned r4[4], t4[4], r2[2], t2[2];
  ldmatrix_x4(r4, &s[lane * 8]);
  ldmatrix_x4_trans(t4, &s[lane * 8]);
  ldmatrix_x2(r2, &s[(lane & 15) * 8]);
  ldmatrix_x2_trans(t2, &s[(lane & 15) * 8]);
  for (int i = 0; i < 4; ++i) {
    out[i * 32 + lane] = r4[i];
    out[(4 + i) * 32 + lane] = t4[i];
  }
  for (int i = 0; i < 2; ++i) {
    out[(8 + i) * 32 + lane] = r2[i];
    out[(10 + i) * 32 + lane] = t2[i];
  }
}

// Copies of every width; `valid` false fills with zeros and must not read.
extern "C" __global__ void copies(const float* in, float* out, int n) {
  __shared__ __align__(16) float s[32 * 4];
  int t = threadIdx.x;
  cp_async16(&s[4 * t], &in[4 * t], 4 * t < n);
  cp_async_commit();
  cp_async_wait<0>();
  for (int i = 0; i < 4; ++i) out[4 * t + i] = s[4 * t + i];
  cp_async8(&s[4 * t], &in[4 * t + 2], 4 * t < n);
  cp_async4(&s[4 * t + 2], &in[4 * t], 4 * t < n);
  cp_async_commit();
  cp_async_wait<0>();
  for (int i = 0; i < 3; ++i) out[128 + 4 * t + i] = s[4 * t + i];
}
