/* scalar.cuh: element types. Arithmetic is done in float or double; the 16-bit types are for storage only,
 * so that no kernel needs a header of the CUDA toolkit (compiles 30 times faster, and on any machine).
 */
#pragma once
#include "ptx.cuh"

struct f16 { unsigned short bits; };
struct bf16 { unsigned short bits; };

// What a sum over elements of a type is kept in.
template <class T> struct accumulate { using type = float; };
template <> struct accumulate<double> { using type = double; };

__device__ __forceinline__ float load(float x) { return x; }
__device__ __forceinline__ double load(double x) { return x; }
__device__ __forceinline__ float load(f16 x) { return f16_to_f32(x.bits); }
__device__ __forceinline__ float load(bf16 x) { return bf16_to_f32(x.bits); }

__device__ __forceinline__ void store(float* p, float x) { *p = x; }
__device__ __forceinline__ void store(double* p, double x) { *p = x; }
__device__ __forceinline__ void store(f16* p, float x) { p->bits = f32_to_f16(x); }
__device__ __forceinline__ void store(bf16* p, float x) { p->bits = f32_to_bf16(x); }

// N elements that move as one access of up to 16 bytes; the address must be a multiple of its size.
template <class T, int N> struct alignas(sizeof(T) * N) vec { T v[N]; };
