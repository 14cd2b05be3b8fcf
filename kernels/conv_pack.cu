/* conv_pack.cu: brings weights and inputs of a convolution into the order that its kernels read.
 *
 * formula     packed[g][tap][a][b] = w[g][a][b][tap], zeros for b up to the pitch;
 *             packed[n][pixel][g][c] = x[n][g * channels + c][pixel], zeros for c up to the pitch
 * layout      any strides in, dense out
 * launch      conv2d_pack_weight: grid-stride, 256 threads; conv2d_pack_input: (ceil(pixels/32), ceil(pitch/32),
 *             images * groups) blocks of 32 x 8
 * cost        each element read once and written once; no arithmetic
 * order       a copy (TF32: rounded to TF32, to nearest)
 * measured    not measured
 * source      -
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64 float16 bfloat16; TF32 = 0
 * specialise  real = float32; TF32 = 1
 */
#include "scalar.cuh"

template <class T> __device__ __forceinline__ T rounded(T x) {
  if constexpr (TF32) return f32_to_tf32(x);
  else return x;
}

extern "C" __global__ void __launch_bounds__(256, 4) conv2d_pack_weight(
    const real* __restrict__ weight,  // element (g, a, b, r, s) at g * stride_g + a * stride_a + ...
    real* __restrict__ packed,        // [groups, kernel_rows * kernel_cols, size_a, pitch]
    int64_t stride_g, int64_t stride_a, int64_t stride_b, int64_t stride_r, int64_t stride_s,
    int groups, int kernel_rows, int kernel_cols, int size_a, int size_b, int pitch) {
  const int64_t size = (int64_t)groups * kernel_rows * kernel_cols * size_a * pitch;
  for (int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x; i < size; i += (int64_t)gridDim.x * 256) {
    const int b = (int)(i % pitch);
    int64_t rest = i / pitch;
    const int a = (int)(rest % size_a);
    rest /= size_a;
    const int s = (int)(rest % kernel_cols), r = (int)(rest / kernel_cols % kernel_rows);
    const int64_t g = rest / kernel_cols / kernel_rows;
    packed[i] =
        b < size_b ? rounded(weight[g * stride_g + a * stride_a + b * stride_b + r * stride_r + s * stride_s]) : real{};
  }
}

// 32 x 32 tiles through shared memory, so that both sides are coalesced.
extern "C" __global__ void __launch_bounds__(256, 4) conv2d_pack_input(
    const real* __restrict__ source,  // [images, groups * channels, rows, cols], strided
    real* __restrict__ packed,        // [images, rows * cols, groups, pitch]
    int64_t stride_n, int64_t stride_c, int64_t stride_h, int64_t stride_w,
    int images, int groups, int channels, int rows, int cols, int pitch) {
  __shared__ real tile[32][33];
  const int64_t pixels = (int64_t)rows * cols, first_pixel = (int64_t)blockIdx.x * 32;
  const int first_channel = blockIdx.y * 32;
  for (int64_t plane = blockIdx.z; plane < (int64_t)images * groups; plane += gridDim.z) {
    const int64_t image = plane / groups, group = plane % groups;
    const unsigned pixel = (unsigned)first_pixel + threadIdx.x;  // a plane has fewer than 2^31 pixels
    const real* from = source + image * stride_n + group * channels * stride_c + pixel / cols * stride_h
                       + pixel % cols * stride_w;
    for (int k = threadIdx.y; k < 32; k += 8) {
      const int c = first_channel + k;
      tile[k][threadIdx.x] = pixel < pixels && c < channels ? from[c * stride_c] : real{};
    }
    __syncthreads();
    const int c = first_channel + threadIdx.x;
    for (int k = threadIdx.y; k < 32; k += 8)
      if (first_pixel + k < pixels && c < pitch)
        packed[((image * pixels + first_pixel + k) * groups + group) * pitch + c] = tile[threadIdx.x][k];
    __syncthreads();
  }
}
