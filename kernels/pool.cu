/* pool.cu: max pooling with the places of the maxima, unpooling, and the transposed maps.
 *
 * formula     max_pool: values[o] = max over the pixels of window o, index[o] = which of them; the first of
 *             equal ones, the last NaN. A window starts at o stride - padding, its taps are dilation apart.
 *             max_unpool: y[p] = the value of the last window that has p as its index, or 0.
 *             max_pool_adjoint: gx[p] = sum of g[o] over the windows o that have p as their index.
 *             max_unpool_adjoint: y[o] = g[index[o]].
 * layout      images [planes, H, W, channels], pooled [planes, Ho, Wo, channels], dense: NCHW is
 *             planes = N C, channels = 1. *_wide: channels in vectors of 16 bytes. *_pairs: windows of 2 x 2
 *             side by side, one channel, rows in vectors of 16 bytes. index: flat in the plane (INDEX = 8)
 *             or the position in the window (INDEX = 1).
 * launch      a thread owns an element (vector) of the result in several planes; the geometry is worked out
 *             once. Unpooling is a gather: each pixel looks at the windows that cover it, and is written once.
 * cost        bytes: image and pooled elements and indices once each (windows that overlap come from L1).
 *             SegNet 64 x 360 x 480, batch 8, 2 x 2 windows: uint8 indices bf16 243 MB, 81 us at 3.0 TB/s,
 *             fp32 465 MB, 155 us, pooling and unpooling alike; int64 indices 398 MB, 133 us (bf16) and
 *             619 MB, 206 us (fp32).
 * order       no sum but that of max_pool_adjoint, windows by rows, no atomics: the same bits from run to run.
 * measured    not measured
 * source      V. Badrinarayanan et al., SegNet, TPAMI 2017, section 3; ties and NaN as torch has them.
 * arch        75 80 86 89 90 100 120
 * hot         max_pool max_pool_wide max_pool_pairs max_unpool max_unpool_wide max_unpool_pairs
 * specialise  real = float32 float64 float16 bfloat16; INDEX = 1 8
 */
#include "scalar.cuh"

using acc = accumulate<real>::type;

template <int BYTES> struct integer { using type = uint8_t; };
template <> struct integer<8> { using type = int64_t; };
using index_t = integer<INDEX>::type;

constexpr int BLOCK = 256;  // with 2 blocks on a multiprocessor as the least, nothing spills
constexpr int WIDE = 16 / sizeof(real);
constexpr int HALF = WIDE / 2;

struct Geometry {
  int h, w, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw;
};

template <class T, int V> __device__ __forceinline__ void read(T (&v)[V], const T* p) {
  constexpr int N = sizeof(T) * V > 16 ? 16 / sizeof(T) : V;
#pragma unroll
  for (int k = 0; k < V; k += N) {
    const vec<T, N> packed = *reinterpret_cast<const vec<T, N>*>(p + k);
#pragma unroll
    for (int e = 0; e < N; ++e) v[k + e] = packed.v[e];
  }
}

template <class T, int V> __device__ __forceinline__ void write(T* p, const T (&v)[V]) {
  constexpr int N = sizeof(T) * V > 16 ? 16 / sizeof(T) : V;
#pragma unroll
  for (int k = 0; k < V; k += N) {
    vec<T, N> packed;
#pragma unroll
    for (int e = 0; e < N; ++e) packed.v[e] = v[k + e];
    *reinterpret_cast<vec<T, N>*>(p + k) = packed;
  }
}

__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

// The taps of a window from `start` on that are inside an axis: first to end - 1.
__device__ __forceinline__ int first_tap(int start, int dilation) {
  return start >= 0 ? 0 : ceil_div(-start, dilation);
}

__device__ __forceinline__ int end_tap(int start, int dilation, int size, int taps) {
  return size <= start ? 0 : min(taps, ceil_div(size - start, dilation));
}

__device__ __forceinline__ acc infinity() { return acc(__int_as_float(0x7f800000)); }

__device__ __forceinline__ bool larger(acc v, acc most) { return v > most || v != v; }

// ---- pooling --------------------------------------------------------------------------------------------

template <int V>
__device__ __forceinline__ void pool_body(const real* __restrict__ x, real* __restrict__ values,
                                          index_t* __restrict__ index, int64_t planes, int channels,
                                          const Geometry& g) {
  const int64_t lanes = (int64_t)g.out_h * g.out_w * channels;
  const int64_t lane = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  if (lane >= lanes) return;
  const int64_t pixel = lane / channels, channel = lane % channels * V;
  const int top = (int)(pixel / g.out_w) * g.sh - g.ph, left = (int)(pixel % g.out_w) * g.sw - g.pw;
  const int ky_first = first_tap(top, g.dh), ky_end = end_tap(top, g.dh, g.h, g.kh);
  const int kx_first = first_tap(left, g.dw), kx_end = end_tap(left, g.dw, g.w, g.kw);
  const int64_t step = (int64_t)channels * V, row_step = g.w * step;
  for (int64_t plane = blockIdx.y; plane < planes; plane += gridDim.y) {
    acc best[V];
    int tap[V];
#pragma unroll
    for (int e = 0; e < V; ++e) best[e] = -infinity(), tap[e] = -1;
    for (int ky = ky_first; ky < ky_end; ++ky) {
      const real* row = x + plane * g.h * row_step + (top + ky * g.dh) * row_step + channel;
      for (int kx = kx_first; kx < kx_end; ++kx) {
        real v[V];
        read(v, row + (left + kx * g.dw) * step);
#pragma unroll
        for (int e = 0; e < V; ++e) {
          const acc value = load(v[e]);
          if (larger(value, best[e]) || tap[e] < 0) best[e] = value, tap[e] = ky * g.kw + kx;
        }
      }
    }
    real kept[V];
    index_t places[V];
#pragma unroll
    for (int e = 0; e < V; ++e) {
      store(kept + e, best[e]);
      const int ky = tap[e] / g.kw, kx = tap[e] % g.kw;
      const int64_t flat = (int64_t)(top + ky * g.dh) * g.w + left + kx * g.dw;
      places[e] = index_t(INDEX == 1 ? max(tap[e], 0) : tap[e] < 0 ? -1 : flat);
    }
    const int64_t to = (plane * lanes + lane) * V;
    write(values + to, kept);
    write(index + to, places);
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
max_pool(const real* __restrict__ x,       // [planes, h, w, channels]
         real* __restrict__ values,        // [planes, out_h, out_w, channels]
         index_t* __restrict__ index,      // [planes, out_h, out_w, channels]
         int64_t planes, int channels, int h, int w, int out_h, int out_w, int kh, int kw, int sh, int sw,
         int ph, int pw, int dh, int dw) {
  pool_body<1>(x, values, index, planes, channels, {h, w, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw});
}

// The same with channels counted in vectors of 16 bytes.
extern "C" __global__ void __launch_bounds__(BLOCK, 2)
max_pool_wide(const real* __restrict__ x, real* __restrict__ values, index_t* __restrict__ index,
              int64_t planes, int channels, int h, int w, int out_h, int out_w, int kh, int kw, int sh, int sw,
              int ph, int pw, int dh, int dw) {
  pool_body<WIDE>(x, values, index, planes, channels, {h, w, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw});
}

// Windows of 2 x 2 side by side, one channel: a thread does HALF windows of a row.
extern "C" __global__ void __launch_bounds__(BLOCK, 2)
max_pool_pairs(const real* __restrict__ x, real* __restrict__ values, index_t* __restrict__ index,
               int64_t planes, int channels, int h, int w, int out_h, int out_w, int kh, int kw, int sh,
               int sw, int ph, int pw, int dh, int dw) {
  const int across = w / WIDE;
  const int64_t lanes = (int64_t)out_h * across;
  const int64_t lane = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  if (lane >= lanes) return;
  const int row = (int)(lane / across), column = (int)(lane % across) * WIDE;
  for (int64_t plane = blockIdx.y; plane < planes; plane += gridDim.y) {
    const int64_t from = (int64_t)(2 * row) * w + column;
    real upper[WIDE], lower[WIDE], kept[HALF];
    index_t places[HALF];
    read(upper, x + plane * h * w + from);
    read(lower, x + plane * h * w + from + w);
#pragma unroll
    for (int e = 0; e < HALF; ++e) {
      acc best = load(upper[2 * e]);
      int tap = 0;
      if (larger(load(upper[2 * e + 1]), best)) best = load(upper[2 * e + 1]), tap = 1;
      if (larger(load(lower[2 * e]), best)) best = load(lower[2 * e]), tap = 2;
      if (larger(load(lower[2 * e + 1]), best)) best = load(lower[2 * e + 1]), tap = 3;
      store(kept + e, best);
      places[e] = index_t(INDEX == 1 ? tap : from + 2 * e + (tap & 1) + (tap >> 1) * w);
    }
    const int64_t to = (plane * out_h + row) * out_w + column / 2;
    write(values + to, kept);
    write(index + to, places);
  }
}

// ---- unpooling ------------------------------------------------------------------------------------------

template <int V, bool SUM>
__device__ __forceinline__ void scatter_body(const real* __restrict__ values,
                                             const index_t* __restrict__ index, real* __restrict__ out,
                                             int64_t planes, int channels, const Geometry& g) {
  const int64_t lanes = (int64_t)g.h * g.w * channels;
  const int64_t lane = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  if (lane >= lanes) return;
  const int64_t pixel = lane / channels, channel = lane % channels;
  const int row = (int)(pixel / g.w) + g.ph, column = (int)(pixel % g.w) + g.pw;
  const int top = max(0, ceil_div(row - g.dh * (g.kh - 1), g.sh)), bottom = min(row / g.sh, g.out_h - 1);
  const int left = max(0, ceil_div(column - g.dw * (g.kw - 1), g.sw)), right = min(column / g.sw, g.out_w - 1);
  for (int64_t plane = blockIdx.y; plane < planes; plane += gridDim.y) {
    acc sum[V] = {};
    for (int oh = top; oh <= bottom; ++oh) {
      const int down = row - oh * g.sh, ky = down / g.dh;
      if (ky * g.dh != down) continue;
      for (int ow = left; ow <= right; ++ow) {
        const int along = column - ow * g.sw, kx = along / g.dw;
        if (kx * g.dw != along) continue;
        const int64_t mine = INDEX == 1 ? (int64_t)ky * g.kw + kx : pixel;
        const int64_t from = (((plane * g.out_h + oh) * g.out_w + ow) * channels + channel) * V;
        index_t places[V];
        real v[V];
        read(places, index + from);
        read(v, values + from);
#pragma unroll
        for (int e = 0; e < V; ++e) {
          if ((int64_t)places[e] == mine) sum[e] = SUM ? sum[e] + load(v[e]) : load(v[e]);
        }
      }
    }
    real kept[V];
#pragma unroll
    for (int e = 0; e < V; ++e) store(kept + e, sum[e]);
    write(out + (plane * lanes + lane) * V, kept);
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
max_unpool(const real* __restrict__ values,      // [planes, out_h, out_w, channels]
           const index_t* __restrict__ index,    // [planes, out_h, out_w, channels]
           real* __restrict__ out,               // [planes, h, w, channels]
           int64_t planes, int channels, int h, int w, int out_h, int out_w, int kh, int kw, int sh, int sw,
           int ph, int pw, int dh, int dw) {
  scatter_body<1, false>(values, index, out, planes, channels,
                         {h, w, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw});
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
max_unpool_wide(const real* __restrict__ values, const index_t* __restrict__ index, real* __restrict__ out,
                int64_t planes, int channels, int h, int w, int out_h, int out_w, int kh, int kw, int sh,
                int sw, int ph, int pw, int dh, int dw) {
  scatter_body<WIDE, false>(values, index, out, planes, channels,
                            {h, w, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw});
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
max_pool_adjoint(const real* __restrict__ values, const index_t* __restrict__ index, real* __restrict__ out,
                 int64_t planes, int channels, int h, int w, int out_h, int out_w, int kh, int kw, int sh,
                 int sw, int ph, int pw, int dh, int dw) {
  scatter_body<1, true>(values, index, out, planes, channels,
                        {h, w, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw});
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
max_pool_adjoint_wide(const real* __restrict__ values, const index_t* __restrict__ index,
                      real* __restrict__ out, int64_t planes, int channels, int h, int w, int out_h,
                      int out_w, int kh, int kw, int sh, int sw, int ph, int pw, int dh, int dw) {
  scatter_body<WIDE, true>(values, index, out, planes, channels,
                           {h, w, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw});
}

// Windows of 2 x 2 side by side, one channel: a thread writes both rows of HALF windows. No pixel is in two
// windows, so this is max_unpool and max_pool_adjoint in one; a last row of an odd h is zero.
extern "C" __global__ void __launch_bounds__(BLOCK, 2)
max_unpool_pairs(const real* __restrict__ values, const index_t* __restrict__ index, real* __restrict__ out,
                 int64_t planes, int channels, int h, int w, int out_h, int out_w, int kh, int kw, int sh,
                 int sw, int ph, int pw, int dh, int dw) {
  const int across = w / WIDE;
  const int64_t lanes = (int64_t)((h + 1) / 2) * across;
  const int64_t lane = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  if (lane >= lanes) return;
  const int row = (int)(lane / across), column = (int)(lane % across) * WIDE;
  for (int64_t plane = blockIdx.y; plane < planes; plane += gridDim.y) {
    real upper[WIDE] = {}, lower[WIDE] = {};
    const int64_t to = (int64_t)(2 * row) * w + column;
    if (row < out_h) {
      const int64_t from = (plane * out_h + row) * out_w + column / 2;
      real v[HALF];
      index_t places[HALF];
      read(v, values + from);
      read(places, index + from);
#pragma unroll
      for (int e = 0; e < HALF; ++e) {
        const int64_t tap = INDEX == 1 ? (int64_t)places[e] : (int64_t)places[e] - to - 2 * e;
        const int64_t below = INDEX == 1 ? 2 : w;
        if (tap == 0) upper[2 * e] = v[e];
        if (tap == 1) upper[2 * e + 1] = v[e];
        if (tap == below) lower[2 * e] = v[e];
        if (tap == below + 1) lower[2 * e + 1] = v[e];
      }
    }
    real* image = out + plane * h * w + to;
    write(image, upper);
    if (2 * row + 1 < h) write(image + w, lower);
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
max_unpool_adjoint(const real* __restrict__ g,            // [planes, h, w, channels]
                   const index_t* __restrict__ index,     // [planes, out_h, out_w, channels]
                   real* __restrict__ out,                // [planes, out_h, out_w, channels]
                   int64_t planes, int channels, int h, int w, int out_h, int out_w, int kh, int kw, int sh,
                   int sw, int ph, int pw, int dh, int dw) {
  const int64_t lanes = (int64_t)out_h * out_w * channels;
  const int64_t lane = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  if (lane >= lanes) return;
  const int64_t pixel = lane / channels, channel = lane % channels;
  const int top = (int)(pixel / out_w) * sh - ph, left = (int)(pixel % out_w) * sw - pw;
  for (int64_t plane = blockIdx.y; plane < planes; plane += gridDim.y) {
    const int64_t place = index[plane * lanes + lane];
    const int ky = INDEX == 1 ? (int)place / kw : -1, kx = INDEX == 1 ? (int)place % kw : -1;
    const int64_t row = INDEX == 1 ? top + (int64_t)ky * dh : place / w;
    const int64_t column = INDEX == 1 ? left + (int64_t)kx * dw : place % w;
    const int64_t down = row - top, along = column - left;
    const bool inside = place >= 0 && row >= 0 && row < h && column >= 0 && column < w && down >= 0 &&
                        along >= 0 && down <= (int64_t)dh * (kh - 1) && along <= (int64_t)dw * (kw - 1) &&
                        down % dh == 0 && along % dw == 0;
    real v = {};
    if (inside) v = g[((plane * h + row) * w + column) * channels + channel];
    out[plane * lanes + lane] = v;
  }
}
