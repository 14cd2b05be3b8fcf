/* conv_epilogue.cuh: what becomes of a convolution's sum before it is stored. */
#pragma once
#include "scalar.cuh"

constexpr int RELU = 1, RELU6 = 2;  // Epilogue::activation; 0: none

// What a kernel's results are stored as: the inputs' type, or (wide) that of the sums.
template <class T, bool> struct result_type { using type = T; };
template <class T> struct result_type<T, true> { using type = typename accumulate<T>::type; };

// activation(scale[c] sum + bias[c] + image_bias[n][c]), each of the three where it is there; rounded once, by `store`.
template <class T> struct Epilogue {
  using accum = typename accumulate<T>::type;
  const T *scale, *bias, *image_bias;  // [channels], [channels], [images, channels], or null
  int channels, activation;            // of all groups

  // The part that an image shares with the others.
  __device__ __forceinline__ accum affine(accum sum, int channel) const {
    if (scale) sum *= (accum)load(scale[channel]);
    if (bias) sum += (accum)load(bias[channel]);
    return sum;
  }

  __device__ __forceinline__ accum rest(accum sum, int image, int channel) const {
    if (image_bias) sum += (accum)load(image_bias[(int64_t)image * channels + channel]);
    if (activation && sum < accum(0)) sum = accum(0);  // NaN stays NaN
    if (activation == RELU6 && sum > accum(6)) sum = accum(6);
    return sum;
  }
};
