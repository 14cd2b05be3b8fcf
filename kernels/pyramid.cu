/* pyramid.cu: PSPNet's pyramid of means over bins, and the convolution of enlarged maps that never exist.
 *
 * formula     pool: y[n, c, (b, i, j)] = mean of x[n, c] over rows floor(i H / b) ... ceil((i + 1) H / b) - 1 and
 *             columns likewise, for each bin size b of a list and 0 <= i, j < b. pool_adjoint: its transpose.
 *             expand: y[n, o, p, q] = f(scale[o] (base[n, o, p, q] + sum_{b, r, s} Z_b[n, o, r, s](p + r - R / 2,
 *             q + s - S / 2)) + bias[o]), where Z_b[n, o, r, s] is a b x b map, read bilinearly at a pixel of the
 *             H x W image, and zero outside: with Z = W X it is the R x S convolution of the enlarged maps X.
 * layout      _planes: x, base, y [planes, H, W], dense. _channels: [N, H, W, C]. Cells of all bins one after the
 *             other, by rows: [planes, cells] or [N, cells, C]. Z: [planes, m] or [N, m, C], where m is, bin by bin,
 *             (r, s, i, j).
 * launch      The edges of all bins cut an axis into atoms (1, 2, 3, 6 and 65 pixels: 11). pool_planes: a thread owns a
 *             column of one of `group` planes and sums it atom by atom; then threads sum columns to rectangles,
 *             and rectangles to cells. pool_channels: a lane owns a channel, warps share out the rectangles.
 *             expand_planes: a thread owns a column, interpolates Z across once, and walks down ROWS rows.
 *             expand_channels: a block owns one row of up to COLUMNS pixels of 32 channels.
 * cost        bytes: pool reads x once whatever the number of bins (1 flop an element); pool_adjoint writes x once;
 *             expand reads base and writes y once, Z is small (stays in L2). flops of expand an element: 4 R for each
 *             bin (_planes), 4 S (_channels), and the epilogue.
 * order       every sum in a fixed order, no atomics: the same bits from run to run.
 * measured    not measured
 * source      H. Zhao et al., Pyramid scene parsing network, CVPR 2017, section 3.2; bins as
 *             torch.nn.functional.adaptive_avg_pool2d has them.
 * arch        75 80 86 89 90 100 120
 * hot         pyramid_pool_planes pyramid_pool_channels pyramid_expand_planes pyramid_expand_channels
 * specialise  real = float32 float64 float16 bfloat16; TAPS = 2
 */
#include "sampling.cuh"

constexpr int MOST_BINS = 8;
constexpr int WARPS = 8;      // of the kernels whose lanes are channels
constexpr int ROWS = 64;      // rows that a block of expand_planes does
constexpr int COLUMNS = 64;   // pixels that a block of expand_channels does

// ---- bins and atoms -------------------------------------------------------------------------------------

// The sizes of a launch's bins, in shared memory: 0 after the last.
struct Sizes {
  int n, sum;  // how many, and their sum
  const int* size;
};

__device__ __forceinline__ Sizes sizes(int* room, int b0, int b1, int b2, int b3, int b4, int b5, int b6, int b7) {
  if (threadIdx.x + threadIdx.y == 0) {
    room[0] = b0;
    room[1] = b1;
    room[2] = b2;
    room[3] = b3;
    room[4] = b4;
    room[5] = b5;
    room[6] = b6;
    room[7] = b7;
  }
  const int n = (b0 > 0) + (b1 > 0) + (b2 > 0) + (b3 > 0) + (b4 > 0) + (b5 > 0) + (b6 > 0) + (b7 > 0);
  return {n, b0 + b1 + b2 + b3 + b4 + b5 + b6 + b7, room};
}

// What the bins make of both axes, in shared memory.
struct Bins : Sizes {
  int* edge[2];   // [atoms + 1], of rows and columns
  int* begin[2];  // [sum]: the first atom of cell i of bin b, bins one after the other
  int* end[2];    // [sum]: the atom after the last
};

__device__ __forceinline__ int floor_edge(int i, int n, int b) { return (int)((int64_t)i * n / b); }
__device__ __forceinline__ int ceil_edge(int i, int n, int b) { return (int)(((int64_t)i * n + b - 1) / b); }

// The bin of a place among all bins' cells of an axis; the place becomes the cell's number in its bin.
__device__ __forceinline__ int bin_of(const int* size, int& place) {
  int b = 0;
  while (place >= size[b]) place -= size[b++];
  return b;
}

__device__ __forceinline__ int find(const int* edge, int v) {
  int i = 0;
  while (edge[i] < v) ++i;
  return i;
}

// Fills shared memory from `room`: MOST_BINS + 4 (sum + n) + rows + cols + 2 + 4 sum integers, for so many atoms.
__device__ __forceinline__ Bins make_bins(int* room, int height, int width, int rows, int cols, int b0, int b1, int b2,
                                          int b3, int b4, int b5, int b6, int b7) {
  const int t = threadIdx.x + threadIdx.y * blockDim.x, threads = blockDim.x * blockDim.y;
  Bins bins;
  static_cast<Sizes&>(bins) = sizes(room, b0, b1, b2, b3, b4, b5, b6, b7);
  const int candidates = 2 * (bins.sum + bins.n);
  int* candidate = room + MOST_BINS;
  int* first = candidate + candidates;
  int* next = first + candidates;
#pragma unroll
  for (int a = 0; a < 2; ++a) {
    bins.edge[a] = next;
    next += (a == 0 ? rows : cols) + 1;
    bins.begin[a] = next;
    next += bins.sum;
    bins.end[a] = next;
    next += bins.sum;
  }
#pragma unroll
  for (int a = 0; a < 2; ++a) {
    const int n = a == 0 ? height : width;
    __syncthreads();
    for (int k = t; k < candidates; k += threads) {  // edges 0 ... b of each bin, rounded down and rounded up
      int i = k >> 1, b = 0;
      while (i > bins.size[b]) i -= bins.size[b++] + 1;
      candidate[k] = k & 1 ? ceil_edge(i, n, bins.size[b]) : floor_edge(i, n, bins.size[b]);
    }
    __syncthreads();
    for (int k = t; k < candidates; k += threads) {  // of equal ones, the first counts
      int u = 0;
      while (candidate[u] != candidate[k]) ++u;
      first[k] = u == k;
    }
    __syncthreads();
    for (int k = t; k < candidates; k += threads) {
      int below = 0;
      for (int u = 0; u < candidates; ++u) below += first[u] && candidate[u] < candidate[k];
      if (first[k]) bins.edge[a][below] = candidate[k];
    }
    __syncthreads();
    for (int k = t; k < bins.sum; k += threads) {
      int i = k;
      const int b = bins.size[bin_of(bins.size, i)];
      bins.begin[a][k] = find(bins.edge[a], floor_edge(i, n, b));
      bins.end[a][k] = find(bins.edge[a], ceil_edge(i + 1, n, b));
    }
  }
  __syncthreads();
  return bins;
}

// Places of a cell's row and column among all bins' cells of their axes.
__device__ __forceinline__ void place_of(const Bins& bins, int cell, int& row, int& col) {
  int b = 0, before = 0;
  while (cell >= bins.size[b] * bins.size[b]) {
    cell -= bins.size[b] * bins.size[b];
    before += bins.size[b++];
  }
  row = before + cell / bins.size[b];
  col = before + cell % bins.size[b];
}

// The mean over a cell of sums over rectangles, which lie `stride` apart.
__device__ __forceinline__ acc mean(const Bins& bins, int cell, int cols, const acc* sums, int stride) {
  int row, col;
  place_of(bins, cell, row, col);
  const int r0 = bins.begin[0][row], r1 = bins.end[0][row], c0 = bins.begin[1][col], c1 = bins.end[1][col];
  acc sum = acc(0);
  for (int r = r0; r < r1; ++r) {
    for (int c = c0; c < c1; ++c) sum += sums[(r * cols + c) * stride];
  }
  return sum / (acc(bins.edge[0][r1] - bins.edge[0][r0]) * acc(bins.edge[1][c1] - bins.edge[1][c0]));
}

// What a pixel of a rectangle gets of the cells' gradients, which lie `stride` apart.
__device__ __forceinline__ acc shared_out(const Bins& bins, int r, int c, int height, int width, const real* g,
                                          int64_t stride) {
  const int top = bins.edge[0][r], left = bins.edge[1][c];
  acc sum = acc(0);
  int first = 0;
  for (int k = 0; k < bins.n; ++k) {
    const int b = bins.size[k];
    const int i1 = ceil_edge(top + 1, b, height), j0 = floor_edge(left, b, width), j1 = ceil_edge(left + 1, b, width);
    for (int i = floor_edge(top, b, height); i < i1; ++i) {
      const acc rows = acc(ceil_edge(i + 1, height, b) - floor_edge(i, height, b));
      for (int j = j0; j < j1; ++j) {
        const acc cols = acc(ceil_edge(j + 1, width, b) - floor_edge(j, width, b));
        sum += load(g[(first + i * b + j) * stride]) / (rows * cols);
      }
    }
    first += b * b;
  }
  return sum;
}

// ---- means over bins ------------------------------------------------------------------------------------

// Shared memory: [rows][blockDim] sums of columns, [group][rows][cols] of rectangles, then the bins.
extern "C" __global__ void __launch_bounds__(256, 2)
pyramid_pool_planes(const real* __restrict__ x,  // [planes, height, width]
                    real* __restrict__ y,        // [planes, all cells]: `cells` of them are written, from `first` on
                    int64_t planes, int height, int width, int rows, int cols, int group, int first, int cells,
                    int all_cells, int b0, int b1, int b2, int b3, int b4, int b5, int b6, int b7) {
  extern __shared__ __align__(16) unsigned char room[];
  acc* down = reinterpret_cast<acc*>(room);
  acc* sums = down + rows * blockDim.x;
  const Bins bins = make_bins(reinterpret_cast<int*>(sums + group * rows * cols), height, width, rows, cols, b0, b1, b2,
                              b3, b4, b5, b6, b7);
  const int t = threadIdx.x, span = min(width, (int)blockDim.x / group);
  const int member = t / span, column = t % span;
  for (int64_t plane = (int64_t)blockIdx.x * group; plane < planes; plane += (int64_t)gridDim.x * group) {
    const int present = (int)min((int64_t)group, planes - plane);
    for (int left = 0; left < width; left += span) {
      if (member < present && left + column < width) {
        const real* p = x + (plane + member) * height * width + left + column;
        for (int r = 0; r < rows; ++r) {
          acc sum = acc(0);
          const int count = bins.edge[0][r + 1] - bins.edge[0][r];
#pragma unroll 8
          for (int k = 0; k < count; ++k, p += width) sum += load(*p);
          down[r * blockDim.x + t] = sum;
        }
      }
      __syncthreads();
      const int right = min(width, left + span);
      for (int k = t; k < present * rows * cols; k += blockDim.x) {
        const int c = k % cols, r = k / cols % rows, m = k / (rows * cols);
        acc sum = left == 0 ? acc(0) : sums[k];
        for (int q = max(bins.edge[1][c], left); q < min(bins.edge[1][c + 1], right); ++q) {
          sum += down[r * blockDim.x + m * span + q - left];
        }
        sums[k] = sum;
      }
      __syncthreads();
    }
    for (int k = t; k < present * cells; k += blockDim.x) {
      const int m = k / cells, cell = k % cells;
      store(y + (plane + m) * all_cells + first + cell, mean(bins, cell, cols, sums + m * rows * cols, 1));
    }
  }
}

// Shared memory: [rows][cols][32] sums of rectangles, then the bins.
extern "C" __global__ void __launch_bounds__(32 * WARPS, 2)
pyramid_pool_channels(const real* __restrict__ x,  // [images, height, width, channels]
                      real* __restrict__ y,        // [images, all cells, channels]
                      int64_t images, int channels, int height, int width, int rows, int cols, int first, int cells,
                      int all_cells, int b0, int b1, int b2, int b3, int b4, int b5, int b6, int b7) {
  extern __shared__ __align__(16) unsigned char room[];
  acc* sums = reinterpret_cast<acc*>(room);
  const Bins bins = make_bins(reinterpret_cast<int*>(sums + rows * cols * 32), height, width, rows, cols, b0, b1, b2,
                              b3, b4, b5, b6, b7);
  const int lane = threadIdx.x, warp = threadIdx.y;
  const int64_t tiles = (channels + 31) / 32;
  for (int64_t tile = blockIdx.x; tile < tiles * images; tile += gridDim.x) {
    const int64_t image = tile / tiles;
    const int channel = (int)(tile % tiles) * 32 + lane;
    const bool there = channel < channels;
    const real* source = x + image * height * width * channels + channel;
    for (int k = warp; k < rows * cols; k += WARPS) {
      const int r = k / cols, c = k % cols, left = bins.edge[1][c], count = bins.edge[1][c + 1] - left;
      acc sum = acc(0);
      for (int p = bins.edge[0][r]; there && p < bins.edge[0][r + 1]; ++p) {
        const real* pixel = source + ((int64_t)p * width + left) * channels;
#pragma unroll 8
        for (int q = 0; q < count; ++q, pixel += channels) sum += load(*pixel);
      }
      sums[k * 32 + lane] = sum;
    }
    __syncthreads();
    for (int cell = warp; there && cell < cells; cell += WARPS) {
      store(y + (image * all_cells + first + cell) * channels + channel, mean(bins, cell, cols, sums + lane, 32));
    }
    __syncthreads();
  }
}

// Shared memory: [group][rows][cols] values of rectangles, then the bins. `add`: to what earlier bins have given.
extern "C" __global__ void __launch_bounds__(256, 2)
pyramid_pool_adjoint_planes(const real* __restrict__ g,  // [planes, all cells]
                            real* __restrict__ gx,       // [planes, height, width]
                            int64_t planes, int height, int width, int rows, int cols, int group, int first,
                            int all_cells, int add, int b0, int b1, int b2, int b3, int b4, int b5, int b6, int b7) {
  extern __shared__ __align__(16) unsigned char room[];
  acc* values = reinterpret_cast<acc*>(room);
  const Bins bins = make_bins(reinterpret_cast<int*>(values + group * rows * cols), height, width, rows, cols, b0, b1,
                              b2, b3, b4, b5, b6, b7);
  const int t = threadIdx.x, span = min(width, (int)blockDim.x / group);
  const int member = t / span, column = t % span;
  for (int64_t plane = (int64_t)blockIdx.x * group; plane < planes; plane += (int64_t)gridDim.x * group) {
    const int present = (int)min((int64_t)group, planes - plane);
    for (int k = t; k < present * rows * cols; k += blockDim.x) {
      const real* given = g + (plane + k / (rows * cols)) * all_cells + first;
      values[k] = shared_out(bins, k / cols % rows, k % cols, height, width, given, 1);
    }
    __syncthreads();
    for (int q = column; member < present && q < width; q += span) {
      int c = 0;
      while (bins.edge[1][c + 1] <= q) ++c;
      real* p = gx + (plane + member) * height * width + q;
      for (int r = 0; r < rows; ++r) {
        const acc value = values[(member * rows + r) * cols + c];
        for (int k = bins.edge[0][r]; k < bins.edge[0][r + 1]; ++k, p += width) {
          store(p, add ? load(*p) + value : value);
        }
      }
    }
    __syncthreads();
  }
}

// No shared memory but the bins.
extern "C" __global__ void __launch_bounds__(32 * WARPS, 2)
pyramid_pool_adjoint_channels(const real* __restrict__ g,  // [images, all cells, channels]
                              real* __restrict__ gx,       // [images, height, width, channels]
                              int64_t images, int channels, int height, int width, int rows, int cols, int first,
                              int all_cells, int add, int b0, int b1, int b2, int b3, int b4, int b5, int b6, int b7) {
  extern __shared__ __align__(16) unsigned char room[];
  const Bins bins = make_bins(reinterpret_cast<int*>(room), height, width, rows, cols, b0, b1, b2, b3, b4, b5, b6, b7);
  const int64_t tiles = (channels + 31) / 32;
  for (int64_t tile = blockIdx.x; tile < tiles * images; tile += gridDim.x) {
    const int64_t image = tile / tiles;
    const int channel = (int)(tile % tiles) * 32 + threadIdx.x;
    if (channel >= channels) continue;
    const real* given = g + (image * all_cells + first) * channels + channel;
    for (int k = threadIdx.y; k < rows * cols; k += WARPS) {
      const int r = k / cols, c = k % cols;
      const acc value = shared_out(bins, r, c, height, width, given, channels);
      for (int p = bins.edge[0][r]; p < bins.edge[0][r + 1]; ++p) {
        real* pixel = gx + ((image * height + p) * width + bins.edge[1][c]) * channels + channel;
        for (int q = bins.edge[1][c]; q < bins.edge[1][c + 1]; ++q, pixel += channels) {
          store(pixel, add ? load(*pixel) + value : value);
        }
      }
    }
  }
}

// ---- the convolution of enlarged maps -------------------------------------------------------------------

// The axis along which a map of b is enlarged to n, as resize.py has it.
__device__ __forceinline__ Axis enlarged(int b, int n, int corners) {
  if (corners) return {b, n, n > 1 ? double(b - 1) / (n - 1) : 0.0, 0.0};
  if (b == n) return {b, n, 1.0, 0.0};
  return {b, n, double(b) / n, 0.5};
}

// What pixel i of the enlarged map takes: two neighbours, or nothing outside.
struct Pair {
  int low, high;
  acc w0, w1;
};

__device__ __forceinline__ Pair pair_at(int b, int n, int corners, int i) {
  if (i < 0 || i >= n) return {0, 0, acc(0), acc(0)};
  const Taps t = taps(enlarged(b, n, corners), i);
  return {t.first, clamp(t.first + 1, b), t.w[0], t.w[1]};
}

__device__ __forceinline__ acc finished(acc sum, const real* scale, const real* bias, int64_t channel, int activation) {
  if (scale) sum *= load(scale[channel]);
  if (bias) sum += load(bias[channel]);
  if (activation && !(sum >= acc(0)) && sum == sum) sum = acc(0);
  return activation == 2 && sum > acc(6) ? acc(6) : sum;
}

// Shared memory: pairs [bins][ROWS + taps_h - 1] of rows, [bins][span + taps_w - 1] of columns,
// [taps_h sum of bins][blockDim] of a thread's own.
extern "C" __global__ void __launch_bounds__(256, 2)
pyramid_expand_planes(const real* base,                // [planes, height, width], may be y
                      const real* __restrict__ z,      // [planes, all]: from `first` on
                      const real* __restrict__ scale,  // [channels] or null
                      const real* __restrict__ bias,   // [channels] or null
                      real* y,                         // [planes, height, width]
                      int64_t planes, int channels, int height, int width, int taps_h, int taps_w, int corners,
                      int activation, int group, int first, int all, int b0, int b1, int b2, int b3, int b4, int b5,
                      int b6, int b7) {
  extern __shared__ __align__(16) unsigned char room[];
  __shared__ int size[MOST_BINS];
  const int t = threadIdx.x, span = min(width, (int)blockDim.x / group);
  const Sizes bins = sizes(size, b0, b1, b2, b3, b4, b5, b6, b7);
  const int n = bins.n;
  const int tall = ROWS + taps_h - 1, wide = span + taps_w - 1;
  Pair* row = reinterpret_cast<Pair*>(room);
  Pair* col = row + n * tall;
  acc* across = reinterpret_cast<acc*>(col + n * wide) + t;
  const int tiles = (width + span - 1) / span;
  const int left = (int)(blockIdx.x % tiles) * span, top = (int)(blockIdx.x / tiles) * ROWS;
  __syncthreads();
  for (int k = t; k < n * tall; k += blockDim.x) {
    row[k] = pair_at(size[k / tall], height, corners, top + k % tall - taps_h / 2);
  }
  for (int k = t; k < n * wide; k += blockDim.x) {
    col[k] = pair_at(size[k / wide], width, corners, left + k % wide - taps_w / 2);
  }
  __syncthreads();
  const int member = t / span, column = t % span;
  const int bottom = min(height, top + ROWS);
  if (member >= group || left + column >= width) return;
  for (int64_t plane = (int64_t)blockIdx.y * group + member; plane < planes; plane += (int64_t)gridDim.y * group) {
    const real* map = z + plane * all + first;
    acc* to = across;
    for (int k = 0; k < n; ++k) {
      const int b = size[k];
      for (int r = 0; r < taps_h; ++r) {
        for (int i = 0; i < b; ++i, to += blockDim.x) {
          acc sum = acc(0);
          for (int s = 0; s < taps_w; ++s) {
            const Pair pair = col[k * wide + column + s];
            const real* line = map + (s * b + i) * b;
            sum = fma(pair.w0, load(line[pair.low]), sum);
            sum = fma(pair.w1, load(line[pair.high]), sum);
          }
          *to = sum;
        }
        map += taps_w * b * b;
      }
    }
    const int64_t start = (plane * height + top) * width + left + column;
    const real* from = base + start;
    real* target = y + start;
    for (int p = 0; p < bottom - top; ++p, from += width, target += width) {
      acc sum = load(*from);
      const acc* held = across;
      for (int k = 0; k < n; ++k) {
        const Pair* at = row + k * tall + p;
        for (int r = 0; r < taps_h; ++r, held += size[k] * blockDim.x) {
          const Pair pair = at[r];
          sum = fma(pair.w0, held[pair.low * blockDim.x], sum);
          sum = fma(pair.w1, held[pair.high * blockDim.x], sum);
        }
      }
      store(target, finished(sum, scale, bias, plane % channels, activation));
    }
  }
}

// Shared memory: pairs [bins][taps_h] of a row, [bins][COLUMNS + taps_w - 1] of columns, [taps_w sum of bins][32].
extern "C" __global__ void __launch_bounds__(32 * WARPS, 2)
pyramid_expand_channels(const real* base,                // [images, height, width, channels], may be y
                        const real* __restrict__ z,      // [images, all, channels]
                        const real* __restrict__ scale,  // [channels] or null
                        const real* __restrict__ bias,   // [channels] or null
                        real* y,                         // [images, height, width, channels]
                        int64_t images, int channels, int height, int width, int taps_h, int taps_w, int corners,
                        int activation, int first, int all, int b0, int b1, int b2, int b3, int b4, int b5, int b6,
                        int b7) {
  extern __shared__ __align__(16) unsigned char room[];
  __shared__ int size[MOST_BINS];
  const int lane = threadIdx.x, warp = threadIdx.y, t = warp * 32 + lane;
  const Sizes bins = sizes(size, b0, b1, b2, b3, b4, b5, b6, b7);
  const int n = bins.n;
  const int wide = COLUMNS + taps_w - 1;
  Pair* row = reinterpret_cast<Pair*>(room);
  Pair* col = row + n * taps_h;
  acc* down = reinterpret_cast<acc*>(col + n * wide);
  const int tiles = (width + COLUMNS - 1) / COLUMNS, deep = (channels + 31) / 32;
  const int64_t all_items = images * height * tiles * deep;
  for (int64_t item = blockIdx.x; item < all_items; item += gridDim.x) {
    const int channel = (int)(item % deep) * 32 + lane;
    const int left = (int)(item / deep % tiles) * COLUMNS;
    const int64_t line = item / deep / tiles;  // of all images
    const int p = (int)(line % height);
    const bool there = channel < channels;
    __syncthreads();  // what the item before has kept has been read
    for (int k = t; k < n * taps_h; k += 32 * WARPS) {
      row[k] = pair_at(size[k / taps_h], height, corners, p + k % taps_h - taps_h / 2);
    }
    for (int k = t; k < n * wide; k += 32 * WARPS) {
      col[k] = pair_at(size[k / wide], width, corners, left + k % wide - taps_w / 2);
    }
    __syncthreads();
    for (int e = warp; there && e < taps_w * bins.sum; e += WARPS) {  // (bin, s, j)
      int k = 0, place = e, before = 0;
      while (place >= taps_w * size[k]) {
        place -= taps_w * size[k];
        before += taps_h * taps_w * size[k] * size[k];
        ++k;
      }
      const int b = size[k], s = place / b, j = place % b;
      const real* map = z + (line / height * all + first + before) * channels + channel;
      acc sum = acc(0);
      for (int r = 0; r < taps_h; ++r) {
        const Pair pair = row[k * taps_h + r];
        const int start = (r * taps_w + s) * b;
        sum = fma(pair.w0, load(map[(int64_t)((start + pair.low) * b + j) * channels]), sum);
        sum = fma(pair.w1, load(map[(int64_t)((start + pair.high) * b + j) * channels]), sum);
      }
      down[e * 32 + lane] = sum;
    }
    __syncthreads();
    for (int q = warp; there && q < min(COLUMNS, width - left); q += WARPS) {
      const int64_t pixel = (line * width + left + q) * channels + channel;
      acc sum = load(base[pixel]);
      const acc* held = down + lane;
      for (int k = 0; k < n; ++k) {
        for (int s = 0; s < taps_w; ++s, held += size[k] * 32) {
          const Pair pair = col[k * wide + q + s];
          sum = fma(pair.w0, held[pair.low * 32], sum);
          sum = fma(pair.w1, held[pair.high * 32], sum);
        }
      }
      store(y + pixel, finished(sum, scale, bias, channel, activation));
    }
  }
}
