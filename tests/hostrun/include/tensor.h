// Host bodies of the wrappers in kernels/ptx.cuh: 16-bit conversions, mma, ldmatrix and cp.async.
#pragma once
#include "runtime_api.h"
#include "scalar_math.h"

// Every NaN becomes 0x7fff, as cvt.rn.f16.f32 gives; the rest is rounded to nearest even.
inline unsigned short f32_to_f16(float value) {
  if (value != value) return 0x7fff;
  return host_bit_cast<unsigned short>((_Float16)value);
}

inline float f16_to_f32(unsigned short bits) { return (float)host_bit_cast<_Float16>(bits); }

inline unsigned short f32_to_bf16(float value) {
  if (value != value) return 0x7fff;
  unsigned bits = host_bit_cast<unsigned>(value);
  unsigned round_to_even = 0x7fff + (bits >> 16 & 1);
  return (unsigned short)((bits + round_to_even) >> 16);
}

inline float bf16_to_f32(unsigned short bits) {
  return host_bit_cast<float>((unsigned)bits << 16);
}

// cvt.rna.tf32.f32: to nearest, ties away from zero, 10 bits of mantissa.
inline float exp2_approx(float x) { return exp2f(x) < 0x1p-126f ? 0.0f : exp2f(x); }

inline float f32_to_tf32(float value) {
  unsigned bits = host_bit_cast<unsigned>(value);
  bool finite = (bits & 0x7f800000) != 0x7f800000;
  if (finite) bits += 0x1000;
  return host_bit_cast<float>(bits & ~0x1fffu);
}

inline void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                             const float (&c)[4], HostSite site = HostSite::here()) {
  host_mma(HOST_MMA_F16, d, a, b, c, site);
}

inline void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                              const float (&c)[4], HostSite site = HostSite::here()) {
  host_mma(HOST_MMA_BF16, d, a, b, c, site);
}

inline void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                             const float (&c)[4], HostSite site = HostSite::here()) {
  host_mma(HOST_MMA_TF32, d, a, b, c, site);
}

inline void ldmatrix_x4(unsigned (&r)[4], const void* row, HostSite site = HostSite::here()) {
  host_ldmatrix(r, row, 4, false, site);
}

inline void ldmatrix_x4_trans(unsigned (&r)[4], const void* row,
                              HostSite site = HostSite::here()) {
  host_ldmatrix(r, row, 4, true, site);
}

inline void ldmatrix_x2(unsigned (&r)[2], const void* row, HostSite site = HostSite::here()) {
  host_ldmatrix(r, row, 2, false, site);
}

inline void ldmatrix_x2_trans(unsigned (&r)[2], const void* row,
                              HostSite site = HostSite::here()) {
  host_ldmatrix(r, row, 2, true, site);
}

inline void cp_async16(void* dst, const void* src, bool valid, HostSite site = HostSite::here()) {
  host_cp_async(dst, src, 16, valid, site);
}

inline void cp_async8(void* dst, const void* src, bool valid, HostSite site = HostSite::here()) {
  host_cp_async(dst, src, 8, valid, site);
}

inline void cp_async4(void* dst, const void* src, bool valid, HostSite site = HostSite::here()) {
  host_cp_async(dst, src, 4, valid, site);
}

inline void cp_async_commit() { host_cp_async_commit(); }

template <int N>
inline void cp_async_wait() {
  host_cp_async_wait(N);
}
