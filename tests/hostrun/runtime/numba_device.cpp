// What numba-cuda's LLVM code calls: NVVM intrinsics (dots become underscores, prefix host_) and the
// libdevice functions that libm lacks. Linked into every numba kernel.
#include "../include/cuda_host.h"

#define DEVICE extern "C" __attribute__((visibility("hidden")))

// ---- special registers

#define REGISTER(NAME, VALUE) \
  DEVICE int host_nvvm_read_ptx_sreg_##NAME() { return (int)(VALUE); }
REGISTER(tid_x, threadIdx.x)
REGISTER(tid_y, threadIdx.y)
REGISTER(tid_z, threadIdx.z)
REGISTER(ntid_x, blockDim.x)
REGISTER(ntid_y, blockDim.y)
REGISTER(ntid_z, blockDim.z)
REGISTER(ctaid_x, blockIdx.x)
REGISTER(ctaid_y, blockIdx.y)
REGISTER(ctaid_z, blockIdx.z)
REGISTER(nctaid_x, gridDim.x)
REGISTER(nctaid_y, gridDim.y)
REGISTER(nctaid_z, gridDim.z)
REGISTER(laneid, host_thread_rank() % 32)
REGISTER(warpsize, 32)
DEVICE int host_numba_lanemask_lt() { return (int)((1u << host_thread_rank() % 32) - 1); }

// ---- dynamic shared memory: numba refers to it by address, so it is one fixed array

extern "C" {
__attribute__((visibility("default"), aligned(128))) char host_numba_dynamic[227 << 10] = {};
__attribute__((visibility("default"))) int host_numba_dynamic_bytes = 0;
}
DEVICE int host_numba_dynamic_size() { return host_numba_dynamic_bytes; }

// ---- the Python line, announced directly before the calls and accesses below

static HostSite site = {"numba kernel", 0};
DEVICE void host_numba_at(const char* file, int line) { site = {file, line}; }

DEVICE void host_numba_touch(void* address, unsigned bytes, int writes, const char* file,
                             int line) {
  host_touch(address, bytes, writes ? HOST_WRITE : HOST_READ, {file, line});
}
// Numbers of several parts and records: a type without an alignment of its own.
DEVICE void host_numba_touch_range(char* address, long bytes, int writes, const char* file,
                                   int line) {
  for (long done = 0; done < bytes;) {
    long step = 1;
    auto at = (uintptr_t)(address + done);
    while (step < 16 && at % (2 * step) == 0 && bytes - done >= 2 * step) step *= 2;
    host_numba_touch(address + done, (unsigned)step, writes, file, line);
    done += step;
  }
}
DEVICE void host_numba_atomic(void* address, unsigned bytes, const char* file, int line) {
  host_atomic(address, bytes, {file, line});
}

// ---- barriers and fences

DEVICE void host_nvvm_barrier0() { host_barrier(0, 0, site); }
DEVICE int host_nvvm_barrier0_popc(int p) { return host_barrier_vote(p, site).count; }
DEVICE int host_nvvm_barrier0_and(int p) { return host_barrier_vote(p, site).all; }
DEVICE int host_nvvm_barrier0_or(int p) { return host_barrier_vote(p, site).any; }
DEVICE void host_nvvm_bar_warp_sync(unsigned mask) { host_warp_sync(mask, site); }
DEVICE void host_nvvm_membar_gl() { __threadfence(); }
DEVICE void host_nvvm_membar_sys() { __threadfence_system(); }
DEVICE void host_nvvm_membar_cta() { __threadfence_block(); }

// ---- warp operations; a pair of value and predicate comes back in one 64-bit word

static unsigned long long pair(unsigned value, bool predicate) {
  return value | (unsigned long long)predicate << 32;
}

// shfl.sync in PTX's own terms: `clamp` holds the segment mask above the last lane of a segment.
DEVICE unsigned long long host_numba_shuffle(unsigned mask, int mode, int value, int operand,
                                             int clamp) {
  int lane = (int)(host_thread_rank() % 32);
  int segment = clamp >> 8 & 31;
  int begin = lane & segment;
  int limit = begin | (clamp & 31 & ~segment);
  int source;
  bool inside;
  operand &= 31;
  switch (mode) {
    case 0:
      source = begin | (operand & ~segment);
      inside = source <= limit;
      break;
    case 1:
      source = lane - operand;
      inside = source >= limit;
      break;
    case 2:
      source = lane + operand;
      inside = source <= limit;
      break;
    default:
      source = lane ^ operand;
      inside = source <= limit;
  }
  if (!inside) source = lane;
  static const HostShuffle kinds[] = {HOST_SHUFFLE_INDEX, HOST_SHUFFLE_UP, HOST_SHUFFLE_DOWN,
                                      HOST_SHUFFLE_XOR};
  // The source lane is absolute from here on; the kind that matters for the report stays.
  int relative = source;
  HostShuffle kind = kinds[mode & 3];
  if (kind == HOST_SHUFFLE_UP) relative = lane - source;
  if (kind == HOST_SHUFFLE_DOWN) relative = source - lane;
  if (kind == HOST_SHUFFLE_XOR) relative = source ^ lane;
  auto bits = host_shuffle(mask, (unsigned)value, 4, kind, relative, 32, site);
  return pair((unsigned)bits, inside);
}

DEVICE unsigned long long host_numba_vote(unsigned mask, int mode, int predicate) {
  static const HostWarpOp ops[] = {HOST_ALL, HOST_ANY, HOST_MATCH_ALL, HOST_BALLOT};
  unsigned result = host_warp_op(mask, predicate != 0, ops[mode & 3], site);
  return mode == 3 ? pair(result, false) : pair(0, result != 0);
}

DEVICE int host_nvvm_match_any_sync_i32(unsigned mask, int value) {
  return (int)host_warp_op(mask, (unsigned)value, HOST_MATCH_ANY, site);
}
DEVICE int host_nvvm_match_any_sync_i64(unsigned mask, long long value) {
  return (int)host_warp_op(mask, (uint64_t)value, HOST_MATCH_ANY, site);
}
DEVICE unsigned long long host_numba_match_all(unsigned mask, unsigned long long value) {
  unsigned lanes = host_warp_op(mask, value, HOST_MATCH_ALL, site);
  return pair(lanes, lanes != 0);
}

// ---- atomics that are no LLVM instruction

#define ATOMIC(T, NAME, CALL) \
  DEVICE T NAME(T* address, T value) { return CALL(address, value, site); }
ATOMIC(float, host_nvvm_atomic_load_add_f32_p0f32, atomicAdd)
ATOMIC(double, host_nvvm_atomic_load_add_f64_p0f64, atomicAdd)
ATOMIC(unsigned, host_nvvm_atomic_load_inc_32_p0i32, atomicInc)
ATOMIC(unsigned, host_nvvm_atomic_load_dec_32_p0i32, atomicDec)

template <class T, class Combine>
static T update(T* address, Combine combine) {
  host_atomic(address, sizeof(T), site);
  T old = *address;
  *address = combine(old);
  return old;
}

// nanmax and nanmin let a number win against a NaN in memory; so do max and min of the device.
#define FLOAT_ATOMICS(T, NAME)                                          \
  DEVICE T ___numba_atomic_##NAME##_add(T* address, T value) {          \
    return update(address, [=](T old) { return old + value; });         \
  }                                                                     \
  DEVICE T ___numba_atomic_##NAME##_sub(T* address, T value) {          \
    return update(address, [=](T old) { return old - value; });         \
  }                                                                     \
  DEVICE T ___numba_atomic_##NAME##_max(T* address, T value) {          \
    return update(address, [=](T old) { return max(old, value); });     \
  }                                                                     \
  DEVICE T ___numba_atomic_##NAME##_min(T* address, T value) {          \
    return update(address, [=](T old) { return min(old, value); });     \
  }                                                                     \
  DEVICE T ___numba_atomic_##NAME##_nanmax(T* address, T value) {       \
    return update(address, [=](T old) { return max(old, value); });     \
  }                                                                     \
  DEVICE T ___numba_atomic_##NAME##_nanmin(T* address, T value) {       \
    return update(address, [=](T old) { return min(old, value); });     \
  }
FLOAT_ATOMICS(float, float)
FLOAT_ATOMICS(double, double)

using word64 = unsigned long long;
DEVICE word64 ___numba_atomic_u64_inc(word64* address, word64 limit) {
  return update(address, [=](word64 old) { return old >= limit ? 0 : old + 1; });
}
DEVICE word64 ___numba_atomic_u64_dec(word64* address, word64 limit) {
  return update(address, [=](word64 old) { return old == 0 || old > limit ? limit : old - 1; });
}

// ---- libdevice

DEVICE float __nv_rsqrtf(float x) { return rsqrtf(x); }
DEVICE double __nv_rsqrt(double x) { return rsqrt(x); }
DEVICE float __nv_saturatef(float x) { return __saturatef(x); }
DEVICE int __nv_popc(int x) { return __popc((unsigned)x); }
DEVICE int __nv_popcll(long long x) { return __popcll((unsigned long long)x); }
DEVICE int __nv_clz(int x) { return __clz(x); }
DEVICE int __nv_clzll(long long x) { return __clzll(x); }
DEVICE int __nv_ffs(int x) { return __ffs(x); }
DEVICE int __nv_ffsll(long long x) { return __ffsll(x); }
DEVICE int __nv_brev(int x) { return (int)__brev((unsigned)x); }
DEVICE int __nv_abs(int x) { return abs(x); }
DEVICE long long __nv_llabs(long long x) { return llabs(x); }
DEVICE int __nv_float2int_rn(float x) { return __float2int_rn(x); }
DEVICE float __nv_fast_expf(float x) { return expf(x); }
DEVICE float __nv_fast_logf(float x) { return logf(x); }
DEVICE float __nv_fast_log2f(float x) { return log2f(x); }
DEVICE float __nv_fast_log10f(float x) { return log10f(x); }
DEVICE float __nv_fast_sinf(float x) { return sinf(x); }
DEVICE float __nv_fast_cosf(float x) { return cosf(x); }
DEVICE float __nv_fast_tanf(float x) { return tanf(x); }
DEVICE float __nv_fast_powf(float x, float y) { return powf(x, y); }
DEVICE float __nv_fast_fdividef(float x, float y) { return x / y; }
DEVICE int __nv_isnanf(float x) { return x != x; }
DEVICE int __nv_isnand(double x) { return x != x; }
DEVICE int __nv_isinff(float x) { return isinf(x); }
DEVICE int __nv_isinfd(double x) { return isinf(x); }
DEVICE int __nv_finitef(float x) { return isfinite(x); }
DEVICE int __nv_isfinited(double x) { return isfinite(x); }
