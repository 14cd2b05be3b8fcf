/* conv_depthwise_weight.cu: the gradient of a depthwise convolution with respect to its weights.
 *
 * formula     dw[o,r,s] = sum_{n,p,q} dy[n,o,p,q] x[n, o / multiplier, p*stride - pad + r*dilation, ...]
 *             BORDER: outside the image stand pixels of it
 * layout      any strides; CHANNELS_LAST: a block owns 32 channels, lanes along them; else one channel, lanes along pixels
 * launch      depthwise_weight: (channel blocks, splits, 1 or taps) of 256 threads; depthwise_weight_reduce: grid-stride
 * cost        2 N Ho Wo Cout kh kw flop; dy once and x once from memory (K = 0: once per tap)
 * order       pixels in order within a thread, then a fixed tree, then splits in order: the same sum on every run and GPU
 * measured    not measured
 * hot         depthwise_weight
 * source      -
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64 float16 bfloat16; K = 0 3 5; CHANNELS_LAST = 0 1; BORDER = 0 1
 */
#include "conv_geometry.cuh"
#include "scalar.cuh"

using accum = accumulate<real>::type;

// partial[split][channel][tap]: a block owns 1 channel (32 with channels last) and a share of the pixels; each thread sums
// its own pixels for all taps of a K x K kernel (one tap a block, blockIdx.z, when K = 0), then a fixed tree adds the threads.
extern "C" __global__ void __launch_bounds__(256, 2) depthwise_weight(
    const real* __restrict__ grad,    // [images, channels, rows, cols], strided
    const real* __restrict__ source,  // [images, channels / multiplier, source_rows, source_cols], strided
    accum* __restrict__ partial,
    int64_t grad_n, int64_t grad_c, int64_t grad_h, int64_t grad_w,
    int64_t source_n, int64_t source_c, int64_t source_h, int64_t source_w,
    int64_t pixels_per_split, int images, int channels, int multiplier, int source_rows, int source_cols, int rows,
    int cols, int kernel_rows, int kernel_cols, int stride_rows, int stride_cols, int pad_top, int pad_left,
    int dilation_rows, int dilation_cols, int border, double inverse_plane) {
  constexpr int CHANNELS = CHANNELS_LAST ? 32 : 1, SLOTS = 256 / CHANNELS, TAPS = K ? K * K : 1;
  __shared__ accum tree[256];
  const Geometry geometry{kernel_cols, stride_rows,   stride_cols,   pad_top,    pad_left,
                          dilation_rows, dilation_cols, source_rows, source_cols, border};
  const Pixels all{images, rows, cols, inverse_plane};
  const int taps = kernel_rows * kernel_cols, thread = threadIdx.x;
  const int channel = blockIdx.x * CHANNELS + thread % CHANNELS, slot = thread / CHANNELS;
  const int64_t first = blockIdx.y * pixels_per_split, last = min(first + pixels_per_split, all.count());
  accum sum[TAPS] = {};
  if (channel < channels) {
    const real* dy = grad + channel * grad_c;
    const real* x = source + channel / multiplier * source_c;
    for (int64_t index = first + slot; index < last; index += SLOTS) {
      const Pixel p = all.at(index);
      const accum g = load(dy[p.image * grad_n + p.row * grad_h + p.col * grad_w]);
#pragma unroll
      for (int k = 0; k < TAPS; ++k) {
        const Tap tap = K ? Tap{k / (K ? K : 1), k % (K ? K : 1)} : geometry.tap(blockIdx.z);
        int y = 0, z = 0;
        if (geometry.source<false, BORDER>(p.row, p.col, tap, y, z))
          sum[k] += g * (accum)load(x[p.image * source_n + y * source_h + z * source_w]);
      }
    }
  }
#pragma unroll
  for (int k = 0; k < TAPS; ++k) {
    tree[thread] = sum[k];
    __syncthreads();
    for (int half = 128; half >= CHANNELS; half /= 2) {
      if (thread < half) tree[thread] += tree[thread + half];
      __syncthreads();
    }
    const int tap = K ? k : blockIdx.z;
    if (thread < CHANNELS && channel < channels)
      partial[((int64_t)blockIdx.y * channels + channel) * taps + tap] = tree[thread];
    __syncthreads();
  }
}

// weight[i] = sum over splits, in order, of partial[split][i].
extern "C" __global__ void __launch_bounds__(256) depthwise_weight_reduce(
    const accum* __restrict__ partial, real* __restrict__ weight, int64_t size, int splits) {
  for (int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x; i < size; i += (int64_t)gridDim.x * 256) {
    accum sum = 0;
    for (int split = 0; split < splits; ++split) sum += partial[split * size + i];
    store(&weight[i], sum);
  }
}
