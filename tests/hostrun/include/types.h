// CUDA's qualifiers, vector types and built-in variables for the host compiler.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __grid_constant__
// One block runs at a time, so a function-local static is exactly one block's shared variable.
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

// For bodies that stand for one hardware instruction: the checker is told about the instruction as
// a whole, so the compiler must not also report its separate loads and stores.
#define HOST_RAW __attribute__((no_sanitize("thread", "undefined")))

#define HOST_VECTOR_TYPES(T, NAME, ALIGN2, ALIGN4)                                        \
  struct NAME##1 {                                                                        \
    T x;                                                                                  \
  };                                                                                      \
  struct alignas(ALIGN2) NAME##2 {                                                        \
    T x, y;                                                                               \
  };                                                                                      \
  struct NAME##3 {                                                                        \
    T x, y, z;                                                                            \
  };                                                                                      \
  struct alignas(ALIGN4) NAME##4 {                                                        \
    T x, y, z, w;                                                                         \
  };                                                                                      \
  inline NAME##1 make_##NAME##1(T x) { return {x}; }                                      \
  inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }                              \
  inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; }                      \
  inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }

HOST_VECTOR_TYPES(signed char, char, 2, 4)
HOST_VECTOR_TYPES(unsigned char, uchar, 2, 4)
HOST_VECTOR_TYPES(short, short, 4, 8)
HOST_VECTOR_TYPES(unsigned short, ushort, 4, 8)
HOST_VECTOR_TYPES(int, int, 8, 16)
HOST_VECTOR_TYPES(unsigned int, uint, 8, 16)
HOST_VECTOR_TYPES(long long, longlong, 16, 16)
HOST_VECTOR_TYPES(unsigned long long, ulonglong, 16, 16)
HOST_VECTOR_TYPES(float, float, 8, 16)
HOST_VECTOR_TYPES(double, double, 16, 16)
#undef HOST_VECTOR_TYPES

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
