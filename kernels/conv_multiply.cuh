/* conv_multiply.cuh: one tensor-core product, chosen by the element type. */
#pragma once
#include "scalar.cuh"

__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], f16) {
  mma_m16n8k16_f16(d, a, b, d);
}
__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], bf16) {
  mma_m16n8k16_bf16(d, a, b, d);
}
__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], float) {
  mma_m16n8k8_tf32(d, a, b, d);
}
