// One barrier each, which BUG_MISSING takes away. Thread `chosen` writes, or reads, alone.
#ifdef BUG_MISSING
#define WARP_BARRIER
#define BLOCK_BARRIER
#else
#define WARP_BARRIER __syncwarp()
#define BLOCK_BARRIER __syncthreads()
#endif

extern "C" __global__ void after_readers_in_warp(int* out, int chosen) {
  __shared__ int s[1];
  int t = threadIdx.x;
  if (t == 0) s[0] = 1;
  __syncthreads();
  int seen = s[0];  // HERE after_readers_in_warp read
  WARP_BARRIER;
  if (t == chosen) s[0] = 2;  // HERE after_readers_in_warp write
  out[t] = seen;
}

extern "C" __global__ void after_readers_and_shuffle(int* out, int chosen) {
  __shared__ int s[1];
  int t = threadIdx.x;
  if (t == 0) s[0] = 1;
  __syncthreads();
  int seen = s[0];  // HERE after_readers_and_shuffle read
  seen += __shfl_xor_sync(~0u, seen, 1) + __popc(__ballot_sync(~0u, seen));
  WARP_BARRIER;
  if (t == chosen) s[0] = seen;  // HERE after_readers_and_shuffle write
  out[t] = seen;
}

extern "C" __global__ void after_readers(int* out, int chosen) {
  __shared__ int s[1];
  int t = threadIdx.x;
  if (t == 0) s[0] = 1;
  __syncthreads();
  int seen = s[0];  // HERE after_readers read
  BLOCK_BARRIER;
  if (t == chosen) s[0] = 2;  // HERE after_readers write
  out[t] = seen;
}

// The writer's warp is in order with itself, the others are not.
extern "C" __global__ void after_other_warps(int* out, int chosen) {
  __shared__ int s[1];
  int t = threadIdx.x;
  if (t == 0) s[0] = 1;
  __syncthreads();
  int seen = s[0];  // HERE after_other_warps read
  __syncwarp();
  BLOCK_BARRIER;
  if (t == chosen) s[0] = 2;  // HERE after_other_warps write
  out[t] = seen;
}

extern "C" __global__ void after_readers_in_global(int* out, int* u, int chosen) {
  int t = threadIdx.x;
  int seen = u[blockIdx.x];  // HERE after_readers_in_global read
  BLOCK_BARRIER;
  if (t == chosen) u[blockIdx.x] = 2;  // HERE after_readers_in_global write
  out[blockIdx.x * blockDim.x + t] = seen;
}

extern "C" __global__ void next_iteration(int* out, int chosen) {
  __shared__ int s[1];
  int t = threadIdx.x, sum = 0;
  for (int i = 0; i < 3; ++i) {
    if (t == chosen) s[0] = i;  // HERE next_iteration write
    __syncthreads();
    sum += s[0];  // HERE next_iteration read
    BLOCK_BARRIER;
  }
  out[t] = sum;
}

extern "C" __global__ void after_writer(int* out, int chosen) {
  __shared__ int s[1];
  int t = threadIdx.x;
  if (t == 0) s[0] = 1;
  __syncthreads();
  if (t == chosen) s[0] = 2;  // HERE after_writer write
  BLOCK_BARRIER;
  out[t] = s[0];  // HERE after_writer read
}

extern "C" __global__ void after_writer_in_global(int* out, int* u, int chosen) {
  int t = threadIdx.x;
  if (t == chosen) u[blockIdx.x] = 2;  // HERE after_writer_in_global write
  BLOCK_BARRIER;
  out[blockIdx.x * blockDim.x + t] = u[blockIdx.x];  // HERE after_writer_in_global read
}

extern "C" __global__ void after_atomics(int* out, int chosen) {
  __shared__ int s[1];
  int t = threadIdx.x;
  if (t == 0) s[0] = 0;
  __syncthreads();
  atomicAdd(&s[0], 1);  // HERE after_atomics write
  BLOCK_BARRIER;
  if (t == chosen) out[0] = s[0];  // HERE after_atomics read
}

extern "C" __global__ void before_atomics(int* out, int chosen) {
  __shared__ int s[1];
  int t = threadIdx.x;
  if (t == 0) s[0] = 0;
  __syncthreads();
  if (t == chosen) out[0] = s[0];  // HERE before_atomics read
  BLOCK_BARRIER;
  atomicAdd(&s[0], 1);  // HERE before_atomics write
}

// All order is by pairs of lanes or of warps: nothing of this is a race.
extern "C" __global__ void ordered_by_pairs(int* out, int chosen) {
  __shared__ int s[4];
  int t = threadIdx.x, lane = t % 32, warp = t / 32;
  // Lanes 0 and 1 read; lane 2 learns of it from one after the other, and writes.
  if (t < 4) s[t] = 1;
  __syncthreads();
  int seen = 0;
  if (warp == 0) {
    if (lane == 0) seen = s[0];
    if (lane == 0 || lane == 2) __syncwarp(0x5u);
    if (lane == 1) seen = s[0];
    if (lane == 1 || lane == 2) __syncwarp(0x6u);
    if (lane == 2) s[0] = 2;
  }
  __syncthreads();
  // The same with warps; the readers come again after their barrier, for another cell.
  if (warp != 1) seen += s[1];
  if (warp == 0 || warp == 2) named_barrier_sync(1, 64);
  if (warp == 3 || warp == 2) named_barrier_sync(2, 64);
  if (t == 64 + chosen % 32) s[1] = 2;
  if (warp == 0 || warp == 3) seen += s[2];
  if (warp == 2) {
    seen += s[3];
    __syncwarp();
    seen += s[3];
    if (lane == 5) seen += s[3];
    __syncwarp();
    if (lane == 6) s[3] = seen;
  }
  out[t] = seen;
}

// The block that comes last writes what all have read; each one but `careless` has fenced.
extern "C" __global__ void after_other_blocks(int* out, int* u, unsigned* arrived, int careless) {
  if (threadIdx.x) return;
  int seen = u[0];  // HERE after_other_blocks read
  if (blockIdx.x != careless) __threadfence();
  if (atomicAdd(arrived, 1u) == gridDim.x - 1) u[0] = 2;  // HERE after_other_blocks write
  out[blockIdx.x] = seen;
}
