// Planted faults: each one must be found, and blamed on the line that is marked with its name.
extern "C" __global__ void read_outside(const int* x, int* out) {
  out[threadIdx.x] = x[threadIdx.x + 1];  // HERE read_outside
}

extern "C" __global__ void before_the_start(int* out) {
  out[(int)threadIdx.x - 1] = 1;  // HERE before_the_start
}

extern "C" __global__ void shared_outside(int* out) {
  extern __shared__ __align__(16) int s[];
  s[threadIdx.x + 1] = 1;  // HERE shared_outside
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void static_shared_outside(int* out, int n) {
  __shared__ int s[32];
  int* p = s;
  p[threadIdx.x + n] = 1;  // HERE static_shared_outside
  out[threadIdx.x] = 0;
}

extern "C" __global__ void missing_syncwarp(int* out) {
  __shared__ int s[32];
  int t = threadIdx.x;
  s[t] = t;
  out[t] = s[31 - t];  // HERE missing_syncwarp
}

extern "C" __global__ void with_syncwarp(int* out) {
  __shared__ int s[32];
  int t = threadIdx.x;
  s[t] = t;
  __syncwarp();
  out[t] = s[31 - t];
}

extern "C" __global__ void uninitialised(int* out) {
  __shared__ int s[32];
  int t = threadIdx.x;
  if (t > 3) s[t] = t;
  __syncthreads();
  out[t] = s[t];  // HERE uninitialised
}

extern "C" __global__ void plain_update(int* out) {
  out[0] += 1;  // HERE plain_update
}

extern "C" __global__ void same_value(int* out) {
  out[0] = 1;  // HERE same_value
}

extern "C" __global__ void check_then_atomic(int* best) {
  int i = blockIdx.x;
  if (best[0] < i) atomicMax(&best[0], i);  // HERE check_then_atomic
}

extern "C" __global__ void volatile_then_atomic(int* best) {
  int i = blockIdx.x;
  if (*(volatile int*)best < i) atomicMax(best, i);
}

extern "C" __global__ void divergent_barrier(int* out) {
  if (threadIdx.x < 16) {
    out[threadIdx.x] = 1;
    __syncthreads();  // HERE divergent_barrier
  } else {
    __syncthreads();  // HERE divergent_barrier_too
    out[threadIdx.x] = 2;
  }
}

extern "C" __global__ void deadlock(int* out) {
  if (threadIdx.x < 16)
    __syncthreads();  // HERE deadlock
  else
    __syncwarp(0xffffffffu);  // HERE deadlock_too
  out[threadIdx.x] = 1;
}

extern "C" __global__ void spin(volatile int* out) {
  int t = threadIdx.x;
  out[t] = 1;
  while (out[t ^ 1] == 0) {  // HERE spin
  }
}

extern "C" __global__ void spin_politely(int* out) {
  while (atomicAdd(&out[0], 0) == 0) __nanosleep(100);  // HERE spin_politely
}

extern "C" __global__ void no_fence(const int* x, int* part, unsigned* arrived, int* out) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    part[blockIdx.x] = x[blockIdx.x];
    last = atomicAdd(arrived, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    int sum = 0;
    for (int i = 0; i < gridDim.x; ++i) sum += part[i];  // HERE no_fence
    *out = sum;
  }
}

extern "C" __global__ void misaligned(float* out) {
  *(float4*)(out + 1 + 4 * threadIdx.x) = make_float4(1, 2, 3, 4);  // HERE misaligned
}

extern "C" __global__ void local_index(int* out, int n) {
  int a[4] = {1, 2, 3, 4};
  out[threadIdx.x] = a[n];  // HERE local_index
}

extern "C" __global__ void division(int* out, int n) {
  out[threadIdx.x] = 5 / n;  // HERE division
}

extern "C" __global__ void wide_shift(int* out, int n) {
  out[threadIdx.x] = 5 << n;  // HERE wide_shift
}

extern "C" __global__ void not_in_mask(int* out) {
  out[threadIdx.x] = __shfl_sync(0xfffffffeu, (int)threadIdx.x, 1);  // HERE not_in_mask
}

extern "C" __global__ void exited_lanes(int* out) {
  if (threadIdx.x >= 16) return;
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, (int)threadIdx.x, 1);  // HERE exited_lanes
}

extern "C" __global__ void half_a_warp(int* out) {
  int value = threadIdx.x;
  if (threadIdx.x < 16) value = __shfl_xor_sync(0xffffffffu, value, 1);  // HERE half_a_warp
  __syncwarp();  // HERE half_a_warp_too
  out[threadIdx.x] = value;
}

extern "C" __global__ void missing_copy_wait(const float* in, float* out) {
  __shared__ __align__(16) float s[128];
  int t = threadIdx.x;
  cp_async16(&s[4 * t], &in[4 * t], true);  // HERE copy_issued
  cp_async_commit();
  out[t] = s[4 * t];  // HERE missing_copy_wait
}

extern "C" __global__ void wait_without_barrier(const float* in, float* out) {
  __shared__ __align__(16) float s[128];
  int t = threadIdx.x;
  cp_async16(&s[4 * t], &in[4 * t], true);
  cp_async_commit();
  cp_async_wait<0>();
  out[t] = s[4 * (31 - t)];  // HERE wait_without_barrier
}

extern "C" __global__ void assertion(int* out) {
  assert(blockDim.x == 31);  // HERE assertion
  out[threadIdx.x] = 0;
}

extern "C" __global__ void __launch_bounds__(2 * 16) bounded(int* out) { out[threadIdx.x] = 1; }
