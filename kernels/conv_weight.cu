/* conv_weight.cu: the gradient of a 2-D convolution with respect to its weights, exact in the input's precision.
 *
 * formula     dw[o,c,r,s] = sum_{n,p,q} dy[n,o,p,q] x[n,c, p*stride - pad + r*dilation, q*stride - pad + s*dilation]
 *             BORDER: outside the image stand pixels of it
 * layout      any strides; CHANNELS_LAST: lanes run along channels instead of pixels
 * launch      conv2d_weight_partial: splits * groups * taps * ceil(Cout/64) * ceil(Cin/64) blocks of 256 threads;
 *             conv2d_weight_reduce: grid-stride, 256 threads
 * cost        2 N Ho Wo Cout Cin/groups kh kw flop; x and dy are read once per tap and 64 channels of the other;
 *             splits * weights * 4 bytes written and read once more
 * order       pixels in order within a split, splits in order; their number depends on the shapes alone: the same
 *             sum on every run and on every GPU
 * measured    not measured
 * hot         conv2d_weight_partial
 * source      split-K: CUTLASS, "Efficient GEMM in CUDA"
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64 float16 bfloat16; CHANNELS_LAST = 0 1; BORDER = 0 1
 */
#include "conv_geometry.cuh"
#include "scalar.cuh"

using accum = accumulate<real>::type;
using quad = vec<accum, 4>;

constexpr int THREADS = 256;
constexpr int WT = 64;   // output and input channels of a weight-gradient tile
constexpr int WK = 16;   // pixels of one step
constexpr int PITCH = WT + 4;
constexpr int WEIGHT_BLOCKS = sizeof(real) == 8 ? 1 : 2;  // resident blocks an SM; doubles need the registers

// partial[split][group][tap][o][c]: the products of one tap, summed over this split's pixels in order.
extern "C" __global__ void __launch_bounds__(256, WEIGHT_BLOCKS) conv2d_weight_partial(
    const real* __restrict__ grad,    // [images, groups * out_channels, rows, cols], strided
    const real* __restrict__ source,  // [images, groups * in_channels, source_rows, source_cols], strided
    accum* __restrict__ partial,
    int64_t grad_n, int64_t grad_c, int64_t grad_h, int64_t grad_w,
    int64_t source_n, int64_t source_c, int64_t source_h, int64_t source_w,
    int64_t pixels_per_split, int images, int groups, int out_channels, int in_channels, int source_rows,
    int source_cols, int rows, int cols, int kernel_rows, int kernel_cols, int stride_rows, int stride_cols,
    int pad_top, int pad_left, int dilation_rows, int dilation_cols, int border, double inverse_plane) {
  __shared__ __align__(16) accum grads[2][WK][PITCH];
  __shared__ __align__(16) accum sources[2][WK][PITCH];
  const Geometry geometry{kernel_cols, stride_rows,   stride_cols,   pad_top,    pad_left,
                          dilation_rows, dilation_cols, source_rows, source_cols, border};
  const int taps = kernel_rows * kernel_cols, thread = threadIdx.x;
  const int out_tiles = (out_channels + WT - 1) / WT, in_tiles = (in_channels + WT - 1) / WT;
  int block = blockIdx.x;
  const int in_base = block % in_tiles * WT;
  block /= in_tiles;
  const int out_base = block % out_tiles * WT;
  block /= out_tiles;
  const Tap tap = geometry.tap(block % taps);
  const int tap_index = block % taps;
  block /= taps;
  const int group = block % groups, split = block / groups;
  const Pixels all{images, rows, cols, inverse_plane};
  const int64_t first = split * pixels_per_split, last = min(first + pixels_per_split, all.count());
  const real* grad_plane = grad + (int64_t)group * out_channels * grad_c;
  const real* source_plane = source + (int64_t)group * in_channels * source_c;

  // Lanes run along what is contiguous: channels (LAYOUT 2: 1 channel of 4 pixels), else pixels (4 channels of 1).
  auto pixel_of = [&](int i) { return CHANNELS_LAST ? thread / WT + 4 * i : thread % WK; };
  auto channel_of = [&](int i) { return CHANNELS_LAST ? thread % WT : thread / WK + WK * i; };
  real next_grad[4], next_source[4];
  auto fetch = [&](int64_t start) {
    Pixel p;
    int row = 0, col = 0;
    bool valid = false;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (CHANNELS_LAST || i == 0) {
        p = all.at(start + pixel_of(i));
        p.inside = p.inside && start + pixel_of(i) < last;
        valid = p.inside && geometry.source<false, BORDER>(p.row, p.col, tap, row, col);
      }
      const int o = out_base + channel_of(i), c = in_base + channel_of(i);
      next_grad[i] = p.inside && o < out_channels
                         ? grad_plane[p.image * grad_n + o * grad_c + p.row * grad_h + p.col * grad_w] : real{};
      next_source[i] = valid && c < in_channels
                           ? source_plane[p.image * source_n + c * source_c + row * source_h + col * source_w] : real{};
    }
  };

  accum sum[4][4] = {};
  const int row4 = thread / 16 * 4, col4 = thread % 16 * 4;
  int buffer = 0;
  fetch(first);
  for (int64_t start = first; start < last; start += WK) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      grads[buffer][pixel_of(i)][channel_of(i)] = load(next_grad[i]);
      sources[buffer][pixel_of(i)][channel_of(i)] = load(next_source[i]);
    }
    __syncthreads();
    if (start + WK < last) fetch(start + WK);
#pragma unroll
    for (int k = 0; k < WK; ++k) {
      const quad a = *(const quad*)&grads[buffer][k][row4], b = *(const quad*)&sources[buffer][k][col4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] += a.v[i] * b.v[j];
    }
    buffer ^= 1;
  }
  accum* out = partial + (((int64_t)split * groups + group) * taps + tap_index) * out_channels * in_channels;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int o = out_base + row4 + i, c = in_base + col4 + j;
      if (o < out_channels && c < in_channels) out[(int64_t)o * in_channels + c] = sum[i][j];
    }
}

// weight[g * out_channels + o][c][tap] = sum over splits, in order, of partial[split][g][tap][o][c].
extern "C" __global__ void __launch_bounds__(256) conv2d_weight_reduce(
    const accum* __restrict__ partial, real* __restrict__ weight, int splits, int groups, int taps, int out_channels,
    int in_channels) {
  const int64_t size = (int64_t)groups * taps * out_channels * in_channels;
  for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < size; i += (int64_t)gridDim.x * THREADS) {
    accum sum = 0;
    for (int split = 0; split < splits; ++split) sum += partial[split * size + i];
    const int c = (int)(i % in_channels);
    const int64_t rest = i / in_channels;
    const int o = (int)(rest % out_channels);
    const int tap = (int)(rest / out_channels % taps);
    const int64_t group = rest / out_channels / taps;
    store(&weight[((group * out_channels + o) * in_channels + c) * taps + tap], sum);
  }
}
