// CUDA's scalar functions. The fast-math ones are exact here: compare with tolerances.
#pragma once
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "types.h"

template <class To, class From>
__forceinline__ To host_bit_cast(From value) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To result;
  memcpy(&result, &value, sizeof result);
  return result;
}

#define HOST_MIN_MAX(T)                                  \
  inline constexpr T min(T a, T b) { return a < b ? a : b; } \
  inline constexpr T max(T a, T b) { return a > b ? a : b; }
HOST_MIN_MAX(int)
HOST_MIN_MAX(unsigned)
HOST_MIN_MAX(long)
HOST_MIN_MAX(unsigned long)
HOST_MIN_MAX(long long)
HOST_MIN_MAX(unsigned long long)
#undef HOST_MIN_MAX

// NaN loses against a number, as on the device.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(a, b); }
inline double max(float a, double b) { return fmax(a, b); }
inline double min(double a, float b) { return fmin(a, b); }
inline double max(double a, float b) { return fmax(a, b); }
inline constexpr unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
inline constexpr unsigned max(int a, unsigned b) { return max((unsigned)a, b); }
inline constexpr unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
inline constexpr unsigned max(unsigned a, int b) { return max(a, (unsigned)b); }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rcbrtf(float x) { return 1.0f / cbrtf(x); }
inline float sinpif(float x) { return (float)sin(M_PI * fmod((double)x, 2.0)); }
inline float cospif(float x) { return (float)cos(M_PI * fmod((double)x, 2.0)); }
inline float fdividef(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }

inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline void __sincosf(float x, float* s, float* c) { sincosf(x, s, c); }

// The _rn family exists to keep the compiler from fusing a multiply with an add.
__forceinline__ float host_unfused(float x) {
  asm("" : "+x"(x));
  return x;
}
__forceinline__ double host_unfused(double x) {
  asm("" : "+x"(x));
  return x;
}
inline float __fadd_rn(float a, float b) { return host_unfused(a + b); }
inline float __fsub_rn(float a, float b) { return host_unfused(a - b); }
inline float __fmul_rn(float a, float b) { return host_unfused(a * b); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline double __dadd_rn(double a, double b) { return host_unfused(a + b); }
inline double __dmul_rn(double a, double b) { return host_unfused(a * b); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

inline int __float_as_int(float x) { return host_bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return host_bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return host_bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return host_bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return host_bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return host_bit_cast<double>(x); }

// The device saturates and turns NaN into 0; in C++ both are undefined.
template <class Int>
inline Int host_saturate(double x, double low, double high) {
  if (x != x) return 0;
  return x <= low ? (Int)low : x >= high ? (Int)high : (Int)x;
}
inline int host_to_int(double x) { return host_saturate<int>(x, -2147483648.0, 2147483647.0); }
inline unsigned host_to_uint(double x) { return host_saturate<unsigned>(x, 0.0, 4294967295.0); }
inline int __float2int_rn(float x) { return host_to_int(rint(x)); }
inline int __float2int_rz(float x) { return host_to_int(trunc(x)); }
inline int __float2int_rd(float x) { return host_to_int(floor(x)); }
inline int __float2int_ru(float x) { return host_to_int(ceil(x)); }
inline unsigned __float2uint_rn(float x) { return host_to_uint(rint(x)); }
inline unsigned __float2uint_rz(float x) { return host_to_uint(trunc(x)); }
inline unsigned __float2uint_rd(float x) { return host_to_uint(floor(x)); }
inline unsigned __float2uint_ru(float x) { return host_to_uint(ceil(x)); }
inline int __double2int_rn(double x) { return host_to_int(rint(x)); }
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }
inline float __double2float_rn(double x) { return (float)x; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __mul24(int a, int b) { return a * b; }
inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return (unsigned)((unsigned long long)a * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}

inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1) << (31 - bit);
  return reversed;
}

inline unsigned long long __brevll(unsigned long long x) {
  return (unsigned long long)__brev((unsigned)x) << 32 | __brev((unsigned)(x >> 32));
}

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  unsigned long long bytes = low | (unsigned long long)high << 32;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    unsigned nibble = selector >> (4 * i);
    unsigned byte = (unsigned)(bytes >> (8 * (nibble & 7))) & 255;
    if (nibble & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << (8 * i);
  }
  return result;
}

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return (unsigned)(((unsigned long long)high << 32 | low) >> (shift & 31));
}

inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return (unsigned)(((unsigned long long)high << 32 | low) << (shift & 31) >> 32);
}

inline unsigned __vabsdiffu4(unsigned a, unsigned b) {
  unsigned result = 0;
  for (int shift = 0; shift < 32; shift += 8) {
    int difference = (int)(a >> shift & 255) - (int)(b >> shift & 255);
    result |= (unsigned)abs(difference) << shift;
  }
  return result;
}

#define __builtin_assume(condition) ((void)0)
#define __builtin_assume_aligned(address, alignment) (address)
