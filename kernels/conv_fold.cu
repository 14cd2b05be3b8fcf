/* conv_fold.cu: from the gradient of a padded image to that of the image, for pixels that stand again in the padding.
 *
 * formula     dx[n,c,i,j] = sum of dp[n,c,u,v] over all places (u, v) of the padded image at which pixel (i, j) stands
 * layout      any strides; lanes along what is contiguous in the result: columns, or (CHANNELS_LAST) channels
 * launch      grid-stride over all elements, 256 threads
 * cost        one addition a place in the padding; the padded gradient read once, in the sums' type, the result written once
 * order       rows from the pixel's own outwards, then columns: the same sum on every run and on every GPU
 * measured    not measured
 * source      -
 * arch        75 80 86 89 90 100 120
 * specialise  real = float32 float64 float16 bfloat16; CHANNELS_LAST = 0 1
 */
#include "conv_geometry.cuh"
#include "scalar.cuh"

using accum = accumulate<real>::type;

// Calls add(place) for each place, counted from the first pixel of an axis of n, at which pixel i stands.
template <class Add> __device__ __forceinline__ void each_place(int border, int i, int n, int before, int after, Add add) {
  add(i);
  if (border == REPLICATE) {
    if (i == 0)
      for (int k = 1; k <= before; ++k) add(-k);
    if (i == n - 1)
      for (int k = 0; k < after; ++k) add(n + k);
    return;
  }
  const bool reflect = border == REFLECT;
  const int low = reflect ? -i : i - n, high = reflect ? 2 * (n - 1) - i : i + n;
  if (low < 0 && low >= -before) add(low);
  if (high >= n && high < n + after) add(high);
}

extern "C" __global__ void __launch_bounds__(256) conv2d_fold(
    const accum* __restrict__ padded,  // [images, channels, top + rows + bottom, left + cols + right], strided
    real* __restrict__ result,         // [images, channels, rows, cols], strided
    int64_t padded_n, int64_t padded_c, int64_t padded_h, int64_t padded_w,
    int64_t result_n, int64_t result_c, int64_t result_h, int64_t result_w,
    int images, int channels, int rows, int cols, int border, int top, int bottom, int left, int right) {
  const int64_t size = (int64_t)images * channels * rows * cols;
  for (int64_t index = (int64_t)blockIdx.x * 256 + threadIdx.x; index < size; index += (int64_t)gridDim.x * 256) {
    const int inner = CHANNELS_LAST ? channels : cols, middle = CHANNELS_LAST ? cols : rows;
    const int outer = CHANNELS_LAST ? rows : channels;
    const int a = (int)(index % inner);
    int64_t rest = index / inner;
    const int b = (int)(rest % middle);
    rest /= middle;
    const int c = (int)(rest % outer), image = (int)(rest / outer);
    const int channel = CHANNELS_LAST ? a : c, row = CHANNELS_LAST ? c : b, col = CHANNELS_LAST ? b : a;
    const accum* from = padded + image * padded_n + channel * padded_c + top * padded_h + left * padded_w;
    accum sum = 0;
    each_place(border, row, rows, top, bottom, [&](int y) {
      each_place(border, col, cols, left, right, [&](int x) { sum += from[y * padded_h + x * padded_w]; });
    });
    store(&result[image * result_n + channel * result_c + row * result_h + col * result_w], sum);
  }
}
