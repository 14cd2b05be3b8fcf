// Correct kernels over the rest of the device API.
using real = float;

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int delta = 16; delta > 0; delta >>= 1)
    value += __shfl_down_sync(0xffffffffu, value, delta);
  return value;
}

extern "C" __global__ void block_sum(const int* x, int* out, int n) {
  __shared__ int part[32];
  int sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    sum += x[i];
  sum = warp_sum(sum);
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = sum;
  __syncthreads();
  if (threadIdx.x < 32) {
    sum = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0;
    for (int delta = 16; delta > 0; delta >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, delta);
    if (threadIdx.x == 0) atomicAdd(out, sum);
  }
}

// Claims a slot by compare-and-swap, counts by addition.
extern "C" __global__ void hash_insert(const unsigned long long* keys, unsigned long long* table,
                                       int* count, int* slot, int n, int capacity) {
  constexpr unsigned long long EMPTY = ~0ull;
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  unsigned long long key = keys[i];
  unsigned h = (unsigned)(key * 0x9E3779B97F4A7C15ull >> 32) % capacity;
  while (true) {
    unsigned long long old = atomicCAS(&table[h], EMPTY, key);
    if (old == EMPTY || old == key) {
      atomicAdd(&count[h], 1);
      slot[i] = h;
      return;
    }
    if (++h == capacity) h = 0;
  }
}

// Rows of 64: votes, matches, shuffles, reductions, block votes.
extern "C" __global__ void collectives(int* out) {
  extern __shared__ int reversed[];
  constexpr unsigned ALL = 0xffffffffu;
  int t = threadIdx.x, row = 0, equal;
  auto emit = [&](int value) { out[64 * row++ + t] = value; };
  reversed[t] = t;
  __syncthreads();
  emit((int)__ballot_sync(ALL, t & 1));
  emit((int)__match_any_sync(ALL, t / 4));
  emit(__any_sync(ALL, t == 5) + 2 * __all_sync(ALL, t < 1000));
  emit(__shfl_up_sync(ALL, t, 1));
  emit(__shfl_sync(ALL, t, 3, 8));
  emit(reversed[63 - t]);
  emit(__syncthreads_count(t < 10));
  emit(__reduce_add_sync(ALL, t));
  emit(__reduce_min_sync(ALL, -t) + __reduce_max_sync(ALL, t));
  emit((int)__match_all_sync(ALL, t / 64, &equal) + equal);
  emit(__syncthreads_or(t == 63) + 2 * __syncthreads_and(t != 63));
  emit((int)__reduce_xor_sync(ALL, (unsigned)t));
  emit((int)__shfl_down_sync(ALL, (double)t, 2));
  if (t < 8) out[64 * row + t] = __shfl_xor_sync(0xffu, t, 7);
}

extern "C" __global__ void from_16_bit(const unsigned short* in, float* f16, float* bf16) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  f16[i] = f16_to_f32(in[i]);
  bf16[i] = bf16_to_f32(in[i]);
}

extern "C" __global__ void to_16_bit(const float* in, unsigned short* f16, unsigned short* bf16,
                                     float* tf32, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  f16[i] = f32_to_f16(in[i]);
  bf16[i] = f32_to_bf16(in[i]);
  tf32[i] = f32_to_tf32(in[i]);
}

extern "C" __global__ void axpy(real* __restrict__ y, const real* __restrict__ x, real a, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) __stcs(&y[i], fmaf(a, __ldg(&x[i]), __ldcs(&y[i])));
}

// Every block sees one sum over all blocks' parts: written, fenced, counted.
extern "C" __global__ void last_block(const int* x, int* part, unsigned* arrived, int* out) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    part[blockIdx.x] = x[blockIdx.x];
    __threadfence();
    last = atomicAdd(arrived, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    int sum = 0;
    for (int i = 0; i < gridDim.x; ++i) sum += part[i];
    *out = sum;
  }
}

// Two producer warps and two consumer warps over named barriers: no thread passes __syncthreads.
extern "C" __global__ void producer_consumer(const int* x, int* out, int rounds) {
  __shared__ int tile[64];
  constexpr int FULL = 1, EMPTY = 2;
  int t = threadIdx.x & 63;
  bool produces = threadIdx.x < 64;
  for (int round = 0; round < rounds; ++round) {
    if (produces) {
      if (round) named_barrier_sync(EMPTY, 128);
      tile[t] = x[64 * round + t];
      named_barrier_sync(FULL, 128);
    } else {
      named_barrier_sync(FULL, 128);
      out[64 * round + t] = tile[63 - t];
      if (round + 1 < rounds) named_barrier_sync(EMPTY, 128);
    }
  }
}

extern "C" __global__ void atomics(int* i, unsigned* u, float* f, unsigned long long* l) {
  int t = threadIdx.x;
  atomicAdd(&i[0], t);
  atomicSub(&i[1], t);
  atomicMin(&i[2], -t);
  atomicMax(&i[3], t);
  atomicAnd(&u[0], ~(1u << t));
  atomicOr(&u[1], 1u << t);
  atomicXor(&u[2], 1u << t);
  atomicInc(&u[3], 6u);
  atomicDec(&u[4], 6u);
  atomicExch(&u[5], 9u);
  atomicAdd(&f[0], 0.5f);
  atomicAdd(&l[0], 1ull << 40);
}

extern "C" __global__ void overlapping(const float* left, float* right, int n) {
  if (threadIdx.x == 0)
    for (int i = 0; i < n; ++i) right[i] = left[i] + 1.0f;
}

extern "C" __global__ void mixed(int* out, bool flag, unsigned char small, long long large,
                                 double real64, const int* maybe) {
  out[0] = flag;
  out[1] = small;
  out[2] = (int)(large >> 32);
  out[3] = (int)real64;
  out[4] = maybe == nullptr;
}

extern "C" __global__ void math(float* out) {
  out[0] = abs(-2.5f);
  out[1] = min(2.0f, 3.0f) + max(1, 2u);
  out[2] = __popc(255) + __clz(1) + __ffs(8) + __brev(1u) / 2147483648u;
  out[3] = rsqrtf(4.0f) + __saturatef(7.0f);
  out[4] = __byte_perm(0x33221100u, 0x77665544u, 0x7531u) == 0x77553311u;
  out[5] = __funnelshift_l(0x80000000u, 1u, 1) + __umulhi(1u << 31, 4u);
  out[6] = __float2int_rn(2.5f) + __float2int_ru(2.1f) + __float2int_rn(1e20f) % 1000;
  float4 v = make_float4(1, 2, 3, 4);
  out[7] = v.x + v.y * v.z - v.w;
}
