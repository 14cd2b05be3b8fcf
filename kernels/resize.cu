/* resize.cu: images to another size, and the transposed map of its gradient.
 *
 * formula     y[n, c] = A_h x[n, c] A_w^T, one sparse matrix per axis; row o of A has TAPS weights, at
 *             clamp(first(o) + k, 0, in - 1). The source coordinate of o is s = scale (o + center) - center:
 *             center is 1/2 for half-pixel centres, 0 for align_corners, "nearest" and an axis that keeps its
 *             size. TAPS = 1: element floor(max(s, 0) + center). TAPS = 2: linear between the two neighbours,
 *             s kept inside the image. TAPS = 4: Keys' cubic with a = -0.75.
 *             resize_adjoint: gx = A_h^T g A_w. antialias_*: one axis, the filter stretched by scale where
 *             that is above 1, weights divided by their sum; triangle (TAPS = 2), Keys a = -0.5 (TAPS = 4).
 * layout      x [planes, H, W, channels], dense: NCHW is planes = N C, channels = 1; channels_last is
 *             planes = N, channels = C, in vectors of 16 bytes (adjoint: 16 bytes of sums) where these fit.
 *             antialias_*: [outer, n, inner].
 * launch      resize: a thread owns a column (and channel vector) of the output and walks down `rows` rows,
 *             over several planes; the rows of x already interpolated along w stay in registers.
 *             resize_adjoint: a block owns ROWS x `cols` elements of gx: it sums down its columns of g first
 *             (one thread a column, each element of g read once), then along the row in shared memory.
 * cost        bytes: resize reads x from DRAM once and writes y once; resize_adjoint reads g from DRAM once
 *             ((ROWS + 1) / ROWS times from L2) and writes gx once. flops an element of y or g: about
 *             2 TAPS (1 + 1 / upscaling); the adjoint multiplies by ROWS weights, most of them zero.
 * order       every sum in a fixed order, no atomics: the same bits from run to run.
 * measured    not measured
 * source      coordinates, rounding of "nearest" and filters as torch.nn.functional.interpolate has them;
 *             R. G. Keys, Cubic convolution interpolation for digital image processing, 1981, eq. 15.
 * arch        75 80 86 89 90 100 120
 * hot         resize resize_wide resize_adjoint resize_adjoint_wide
 * specialise  real = float32 float64 float16 bfloat16; TAPS = 1 2 4
 */
#include "scalar.cuh"
#include "sampling.cuh"

constexpr int BLOCK = 256;     // with 2 blocks on a multiprocessor as the least, nothing spills
constexpr int ROWS = 4;        // rows of gx that a block of resize_adjoint owns
constexpr int TABLE = 64;      // rows whose weights are in shared memory at a time

// sum += w v, where a weight of zero takes nothing, not even of an infinity.
template <int V> __device__ __forceinline__ void add(acc (&sum)[V], acc w, const acc (&v)[V]) {
#pragma unroll
  for (int e = 0; e < V; ++e) sum[e] = w != acc(0) ? fma(w, v[e], sum[e]) : sum[e];
}

template <int V> __device__ __forceinline__ void read(acc (&v)[V], const real* p) {
  const vec<real, V> packed = *reinterpret_cast<const vec<real, V>*>(p);
#pragma unroll
  for (int e = 0; e < V; ++e) v[e] = load(packed.v[e]);
}

template <int V> __device__ __forceinline__ void write(real* p, const acc (&v)[V]) {
  vec<real, V> packed;
#pragma unroll
  for (int e = 0; e < V; ++e) store(&packed.v[e], v[e]);
  *reinterpret_cast<vec<real, V>*>(p) = packed;
}

// ---- forward --------------------------------------------------------------------------------------------

// Thread t of a block: plane t / span of the `group` planes that it does at a time, lane t % span of a row.
template <int V>
__device__ __forceinline__ void resize_body(const real* __restrict__ x, real* __restrict__ y, int64_t planes,
                                            int channels, const Axis& h, const Axis& w, int rows, int group) {
  __shared__ Taps table[TABLE];
  const int64_t lanes = (int64_t)w.out * channels;
  const int span = (int)min(lanes, (int64_t)BLOCK);
  const int64_t tiles = (lanes + BLOCK - 1) / BLOCK;
  const int64_t q = blockIdx.x % tiles * BLOCK + threadIdx.x % span;
  const int top = (int)(blockIdx.x / tiles) * rows;
  const int count = min(rows, h.out - top);
  for (int r = threadIdx.x; r < count; r += blockDim.x) table[r] = taps(h, top + r);

  const int column = (int)(q / channels);
  const int64_t channel = (q % channels) * V;
  const Taps across = taps(w, min(column, w.out - 1));
  int64_t offset[TAPS];
#pragma unroll
  for (int k = 0; k < TAPS; ++k) offset[k] = (int64_t)clamp(across.first + k, w.in) * channels * V + channel;
  const int64_t x_row = (int64_t)w.in * channels * V, y_row = lanes * V;
  const int member = threadIdx.x / span;
  const int64_t end = member < group && q < lanes ? planes : 0;
  __syncthreads();

  const int64_t stride = (int64_t)gridDim.y * group;
  for (int64_t plane = (int64_t)blockIdx.y * group + member; plane < end; plane += stride) {
    const real* source = x + plane * h.in * x_row;
    real* target = y + (plane * h.out + top) * y_row + q * V;
    acc held[TAPS][V];             // rows next - TAPS ... next - 1 of x, interpolated along w
    int next = table[0].first;
    for (int r = 0; r < count; ++r, target += y_row) {
      const int first = table[r].first;
      for (next = max(next, first); next < first + TAPS; ++next) {
#pragma unroll
        for (int k = 0; k + 1 < TAPS; ++k) {
#pragma unroll
          for (int e = 0; e < V; ++e) held[k][e] = held[k + 1][e];
        }
        const real* row = source + clamp(next, h.in) * x_row;
        acc sum[V] = {}, v[V];
#pragma unroll
        for (int k = 0; k < TAPS; ++k) {
          read<V>(v, row + offset[k]);
          add<V>(sum, across.w[k], v);
        }
#pragma unroll
        for (int e = 0; e < V; ++e) held[TAPS - 1][e] = sum[e];
      }
      acc sum[V] = {};
#pragma unroll
      for (int k = 0; k < TAPS; ++k) add<V>(sum, table[r].w[k], held[k]);
      write<V>(target, sum);
    }
  }
}

constexpr int WIDE = 16 / sizeof(real);

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
resize(const real* __restrict__ x,   // [planes, h_in, w_in, channels]
       real* __restrict__ y,         // [planes, h_out, w_out, channels]
       int64_t planes, int channels, int h_in, int w_in, int h_out, int w_out, double h_scale,
       double h_center, double w_scale, double w_center, int rows, int group) {
  resize_body<1>(x, y, planes, channels, {h_in, h_out, h_scale, h_center}, {w_in, w_out, w_scale, w_center},
                 rows, group);
}

// The same with channels counted in vectors of 16 bytes.
extern "C" __global__ void __launch_bounds__(BLOCK, 2)
resize_wide(const real* __restrict__ x, real* __restrict__ y, int64_t planes, int channels, int h_in,
            int w_in, int h_out, int w_out, double h_scale, double h_center, double w_scale, double w_center,
            int rows, int group) {
  resize_body<WIDE>(x, y, planes, channels, {h_in, h_out, h_scale, h_center},
                    {w_in, w_out, w_scale, w_center}, rows, group);
}

// ---- adjoint --------------------------------------------------------------------------------------------

// A block does ROWS x cols elements of gx for `deep` channels of `group` planes at a time. The columns of g
// that they take from come in chunks: thread (plane, column, channel) sums its column of g into ROWS sums,
// then thread (plane, element, channel) sums those of its columns. group max(cols, chunk) deep <= blockDim.x.
template <int V>
__device__ __forceinline__ void adjoint_body(const real* __restrict__ g, real* __restrict__ gx,
                                             int64_t planes, int channels, const Axis& h, const Axis& w,
                                             int cols, int chunk, int deep, int group) {
  __shared__ vec<acc, V> sums[ROWS][BLOCK];
  __shared__ vec<acc, ROWS> row_weight[TABLE];
  __shared__ Taps column[BLOCK];
  __shared__ int begin[BLOCK], end[BLOCK], row_range[2];

  const int t = threadIdx.x;
  const int col_tiles = (w.in + cols - 1) / cols;
  const int deep_tiles = (channels + deep - 1) / deep;
  const int tile = blockIdx.x / col_tiles;
  const int left = (int)(blockIdx.x % col_tiles) * cols;
  const int channel0 = tile % deep_tiles * deep;
  const int top = tile / deep_tiles * ROWS;
  const int wide = min(cols, w.in - left);
  if (t < wide) {
    begin[t] = outputs_begin(w, left + t);
    end[t] = outputs_end(w, left + t);
  }
  if (t == 0) row_range[0] = outputs_begin(h, top);
  if (t == blockDim.x - 1) row_range[1] = outputs_end(h, min(top + ROWS, h.in) - 1);
  __syncthreads();

  const int channel = channel0 + t % deep;
  const int place = t / deep;  // (plane, column) of the first sum, (plane, element) of the second
  const int in_plane = place / chunk, in_column = place % chunk;
  const int out_plane = place / cols, out_column = place % cols;
  const bool gives = in_plane < group && channel < channels;
  const bool takes = out_plane < group && out_column < wide && channel < channels;
  const int64_t g_row = (int64_t)w.out * channels * V;
  const int rows_begin = row_range[0], rows_end = row_range[1];
  const int columns_begin = begin[0], columns_end = end[wide - 1];
  int rows_held = -1, columns_held = -1;  // whose weights shared memory has: kept over planes where they fit

  for (int64_t plane = (int64_t)blockIdx.y * group; plane < planes; plane += (int64_t)gridDim.y * group) {
    acc result[ROWS][V] = {};
    for (int c0 = columns_begin; c0 < columns_end; c0 += chunk) {
      acc down[ROWS][V] = {};
      const bool reads = gives && c0 + in_column < columns_end && plane + in_plane < planes;
      for (int r0 = rows_begin; r0 < rows_end; r0 += TABLE) {
        const int count = min(TABLE, rows_end - r0);
        if (r0 != rows_held) {
          __syncthreads();
          for (int r = t; r < count; r += blockDim.x) {
            const Taps row = taps(h, r0 + r);
#pragma unroll
            for (int i = 0; i < ROWS; ++i) row_weight[r].v[i] = weight(row, top + i, h.in);
          }
          rows_held = r0;
          __syncthreads();
        }
        if (!reads) continue;
        const real* p = g + ((plane + in_plane) * h.out + r0) * g_row +
                        ((int64_t)(c0 + in_column) * channels + channel) * V;
#pragma unroll (V > 1 ? 4 : 8)
        for (int r = 0; r < count; ++r, p += g_row) {
          acc v[V];
          read<V>(v, p);
          const vec<acc, ROWS> down_weight = row_weight[r];
#pragma unroll
          for (int i = 0; i < ROWS; ++i) add<V>(down[i], down_weight.v[i], v);
        }
      }
      __syncthreads();  // the sums and taps of the chunk before have been read
      if (c0 != columns_held) {
        if (t < chunk && c0 + t < columns_end) column[t] = taps(w, c0 + t);
        columns_held = c0;
      }
#pragma unroll
      for (int i = 0; i < ROWS; ++i) {
#pragma unroll
        for (int e = 0; e < V; ++e) sums[i][t].v[e] = down[i][e];
      }
      __syncthreads();
      if (takes) {
        const int last = min(c0 + chunk, end[out_column]);
        for (int c = max(c0, begin[out_column]); c < last; ++c) {
          const acc across = weight(column[c - c0], left + out_column, w.in);
          const int from = (out_plane * chunk + c - c0) * deep + t % deep;
#pragma unroll
          for (int i = 0; i < ROWS; ++i) add<V>(result[i], across, sums[i][from].v);
        }
      }
    }
    if (takes && plane + out_plane < planes) {
#pragma unroll
      for (int i = 0; i < ROWS; ++i) {
        const int64_t pixel = ((plane + out_plane) * h.in + top + i) * w.in + left + out_column;
        if (top + i < h.in) write<V>(gx + (pixel * channels + channel) * V, result[i]);
      }
    }
  }
}

constexpr int WIDE_SUMS = 16 / sizeof(acc);

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
resize_adjoint(const real* __restrict__ g,  // [planes, h_out, w_out, channels]
               real* __restrict__ gx,       // [planes, h_in, w_in, channels]
               int64_t planes, int channels, int h_in, int w_in, int h_out, int w_out, double h_scale,
               double h_center, double w_scale, double w_center, int cols, int chunk, int deep, int group) {
  adjoint_body<1>(g, gx, planes, channels, {h_in, h_out, h_scale, h_center}, {w_in, w_out, w_scale, w_center},
                  cols, chunk, deep, group);
}

// The same with channels counted in vectors of 16 / sizeof(acc) elements.
extern "C" __global__ void __launch_bounds__(BLOCK, 2)
resize_adjoint_wide(const real* __restrict__ g, real* __restrict__ gx, int64_t planes, int channels, int h_in,
                    int w_in, int h_out, int w_out, double h_scale, double h_center, double w_scale,
                    double w_center, int cols, int chunk, int deep, int group) {
  adjoint_body<WIDE_SUMS>(g, gx, planes, channels, {h_in, h_out, h_scale, h_center},
                          {w_in, w_out, w_scale, w_center}, cols, chunk, deep, group);
}

// ---- antialiased, one axis at a time --------------------------------------------------------------------

// Inputs first ... end - 1 under the filter of output o; the filter's argument of input first + k is
// (offset + k) * shrink.
struct Window {
  int first, end;
  acc offset, shrink;
};

__device__ __forceinline__ Window window(const Axis& axis, int o) {
  const double stretch = fmax(axis.scale, 1.0);
  const double center = axis.scale * (o + 0.5), support = 0.5 * TAPS * stretch;
  Window t;
  t.first = max((int)(center - support + 0.5), 0);
  t.end = min((int)(center + support + 0.5), axis.in);
  t.offset = acc(t.first - center + 0.5);
  t.shrink = acc(1.0 / stretch);
  return t;
}

__device__ __forceinline__ acc antialias_weight(const Window& t, int i) {
  const acc d = fabs((t.offset + acc(i - t.first)) * t.shrink);
  if (TAPS == 4) return d < acc(1) ? cubic_near(d, acc(-0.5)) : d < acc(2) ? cubic_far(d, acc(-0.5)) : acc(0);
  return max(acc(1) - d, acc(0));
}

__device__ __forceinline__ acc antialias_total(const Window& t) {
  acc total = acc(0);
  for (int i = t.first; i < t.end; ++i) total += antialias_weight(t, i);
  return total;
}

template <class From, class To>
__device__ __forceinline__ void antialias_body(const From* __restrict__ x, To* __restrict__ y, int64_t size,
                                               int64_t inner, const Axis& axis) {
  for (int64_t k = (int64_t)blockIdx.x * BLOCK + threadIdx.x; k < size; k += (int64_t)gridDim.x * BLOCK) {
    const int64_t outer = k / inner / axis.out;
    const Window t = window(axis, (int)(k / inner % axis.out));
    const From* p = x + (outer * axis.in + t.first) * inner + k % inner;
    acc sum = acc(0), total = acc(0);
    for (int i = t.first; i < t.end; ++i, p += inner) {
      const acc w = antialias_weight(t, i);
      total += w;
      if (w != acc(0)) sum = fma(w, load(*p), sum);
    }
    store(y + k, sum / total);
  }
}

// The gather of input i: outputs_begin and outputs_end with a window of any length.
template <class From, class To>
__device__ __forceinline__ void antialias_adjoint_body(const From* __restrict__ g, To* __restrict__ gx,
                                                       const acc* __restrict__ total, int64_t size,
                                                       int64_t inner, const Axis& axis) {
  for (int64_t k = (int64_t)blockIdx.x * BLOCK + threadIdx.x; k < size; k += (int64_t)gridDim.x * BLOCK) {
    const int64_t outer = k / inner / axis.in;
    const int i = (int)(k / inner % axis.in);
    int o = 0, high = axis.out;
    while (o < high) {
      const int middle = (o + high) >> 1;
      if (window(axis, middle).end <= i) o = middle + 1;
      else high = middle;
    }
    acc sum = acc(0);
    for (; o < axis.out; ++o) {
      const Window t = window(axis, o);
      if (t.first > i) break;
      const acc w = antialias_weight(t, i) / total[o];
      if (w != acc(0)) sum = fma(w, load(g[(outer * axis.out + o) * inner + k % inner]), sum);
    }
    store(gx + k, sum);
  }
}

// The first axis leaves unrounded sums, the second one reads them.
extern "C" __global__ void __launch_bounds__(BLOCK, 2)
antialias_first(const real* __restrict__ x,  // [outer, n_in, inner]
                acc* __restrict__ y,         // [outer, n_out, inner]
                int64_t size, int64_t inner, int n_in, int n_out, double scale) {
  antialias_body(x, y, size, inner, {n_in, n_out, scale, 0.5});
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
antialias_second(const acc* __restrict__ x, real* __restrict__ y, int64_t size, int64_t inner, int n_in,
                 int n_out, double scale) {
  antialias_body(x, y, size, inner, {n_in, n_out, scale, 0.5});
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
antialias_totals(acc* __restrict__ total,  // [n_out]: sums of weights
                 int n_in, int n_out, double scale) {
  const Axis axis = {n_in, n_out, scale, 0.5};
  const int o = blockIdx.x * BLOCK + threadIdx.x;
  if (o < n_out) total[o] = antialias_total(window(axis, o));
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
antialias_adjoint_first(const real* __restrict__ g,  // [outer, n_out, inner]
                        acc* __restrict__ gx,        // [outer, n_in, inner]
                        const acc* __restrict__ total, int64_t size, int64_t inner, int n_in, int n_out,
                        double scale) {
  antialias_adjoint_body(g, gx, total, size, inner, {n_in, n_out, scale, 0.5});
}

extern "C" __global__ void __launch_bounds__(BLOCK, 2)
antialias_adjoint_second(const acc* __restrict__ g, real* __restrict__ gx, const acc* __restrict__ total,
                         int64_t size, int64_t inner, int n_in, int n_out, double scale) {
  antialias_adjoint_body(g, gx, total, size, inner, {n_in, n_out, scale, 0.5});
}
