/* superpixel.cu: SLIC superpixels: colours, k-means within a grid of cells, connected segments, small ones merged.
 *
 * formula     d(p, k) = f_k sum_c (colour_pc - mean_kc)^2 + weight ((y - y_k)^2 + (x - x_k)^2), least over the nine
 *             clusters whose cells lie around the pixel's; f_k is 1, or with ZERO 1 / the largest colour term so far
 * layout      planes [images, C, H, W] int16: Lab times 64, or shares of the range times 2^14; centre
 *             [images, K, 3 + C]: y, x, f, means; sums [images, K, 3 + C]: pixels, their y, x and colours
 * launch      pixels: a thread each, 256 a block. slic_assign: a thread for 8 visited rows of a column, a block for
 *             32 x 32 (128 threads), images in y. slic_merge: a block of 1024 threads for each image
 * cost        slic_assign reads 2 C bytes a pixel of a visited row, and writes labels in the last iteration alone; all
 *             but the last two iterations visit a third of the rows. Ten iterations at C = 3: 34 bytes a pixel (10 MB at
 *             640 x 480, 70 MB at 1920 x 1080, from L2), 9 * 14 flops a visit without fused multiply-adds. The rest:
 *             colours 9 to 18 bytes, connecting 40 to 60, result 8. A call is 33 launches and waits for nothing.
 *             Expected of an H100, launches included: 0.3 ms at 640 x 480, 1 ms at 1920 x 1080, of which slic_merge,
 *             where one block goes through all short borders of an image in two to four rounds, is more than half
 * order       integers alone are summed by atomics, products are not fused, ties fall to the lower number: the same
 *             labels on every run, and on the CPU
 * measured    not measured
 * hot         slic_assign
 * source      R. Achanta et al., SLIC superpixels compared to state-of-the-art superpixel methods, PAMI 2012; C. Y. Ren
 *             et al., gSLICr, 2015 (nine candidates); connected parts by union-find with atomicMin: D. P. Playne, K.
 *             Hawick, A new algorithm for parallel connected-component labelling on GPUs, TPDS 2018
 * arch        75 80 86 89 90 100 120
 * specialise  CHANNELS = 0 1 3; BYTES = 0; ZERO = 0 1
 * specialise  CHANNELS = 1; BYTES = 1; ZERO = 0
 */
#include "components.cuh"
#include "scalar.cuh"

template <int> struct pixel_type { using type = float; };
template <> struct pixel_type<1> { using type = unsigned char; };
using pixel = pixel_type<BYTES>::type;

constexpr int THREADS = 256;  // of a block where a pixel has a thread
constexpr int TILE = 32;      // columns, and visited rows, of a block of slic_assign
constexpr int DEEP = 8;       // rows of a thread there
constexpr int STEPS = 4096;   // of the table of sRGB's curve
constexpr int CBRT = 709958130;  // 2^23 (127 - 127 / 3 - 0.0331): bits / 3 + this are those of a cube root, to 5 %
constexpr unsigned ALL = 0xffffffffu;
constexpr float LAB_UNIT = 64, UNIT = 16384;
constexpr int FIXED = CHANNELS > 0 ? CHANNELS : 1;
constexpr int AROUND = CHANNELS > 0 ? 9 : 1;  // clusters that a thread of slic_assign keeps in registers

// ---- colours ----------------------------------------------------------------------------------------------

// Floats as integers of the same order.
__device__ __forceinline__ int ordered(float v) {
  const int bits = __float_as_int(v);
  return bits < 0 ? bits ^ 0x7fffffff : bits;
}

__device__ __forceinline__ float from_ordered(int v) { return __int_as_float(v < 0 ? v ^ 0x7fffffff : v); }

// What a call begins with: empty ranges and sums, clusters that are nowhere, and where the cells are.
extern "C" __global__ void __launch_bounds__(THREADS) slic_clear(
    int32_t* __restrict__ range,   // [images, 2]
    float* __restrict__ centre,    // [images, K, 3 + C]
    uint64_t* __restrict__ sums,   // [images, K, 3 + C]
    unsigned* __restrict__ most,   // [images, K]: bits of floats
    int32_t* __restrict__ cells,   // [H + 2 W]: the cell of a row, of a column, and of a column's block
    int64_t images, int64_t clusters, int channels, float softness, int height, int width, int rows, int columns,
    int block) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i < height) {
    cells[i] = (int)(i * rows / height);
  } else if (i < (int64_t)height + width) {
    const int64_t x = i - height;
    cells[i] = (int)(x * columns / width);
    cells[i + width] = (int)min((int64_t)columns - 1, (x / block * block + block / 2) * columns / width);
  }
  if (i < 2 * images) range[i] = i % 2 ? -0x7fffffff - 1 : 0x7fffffff;
  if (i < images * clusters) most[i] = __float_as_uint(softness);
  if (i < images * clusters * (3 + channels)) {
    centre[i] = __int_as_float(0x7f800000);
    sums[i] = 0;
  }
}

// The least and the greatest value of each image, of those that are finite and inside of the mask.
extern "C" __global__ void __launch_bounds__(THREADS) slic_range(
    const pixel* __restrict__ image,         // [images, pixels, C]
    const unsigned char* __restrict__ mask,  // [images, pixels] or null
    int32_t* __restrict__ range,             // [images, 2]
    int64_t images, int64_t pixels, int channels) {
  for (int64_t b = blockIdx.y; b < images; b += gridDim.y) {
    int low = 0x7fffffff, high = -0x7fffffff - 1;
    const int64_t stride = (int64_t)gridDim.x * THREADS;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < pixels * channels; i += stride) {
      const float v = (float)image[b * pixels * channels + i];
      if ((mask && !mask[b * pixels + i / channels]) || !(fabsf(v) <= 3.402823466e38f)) continue;
      low = min(low, ordered(v));
      high = max(high, ordered(v));
    }
#pragma unroll
    for (int shift = 16; shift > 0; shift /= 2) {
      low = min(low, __shfl_xor_sync(ALL, low, shift));
      high = max(high, __shfl_xor_sync(ALL, high, shift));
    }
    if (threadIdx.x % 32 == 0 && low <= high) {
      atomicMin(range + 2 * b, low);
      atomicMax(range + 2 * b + 1, high);
    }
  }
}

// A value as a share of the image's range; 0 for NaN.
__device__ __forceinline__ float unit(float v, float low, float scale) {
  float u = __fmul_rn(v - low, scale);
  u = u > 0.f ? u : 0.f;
  return u < 1.f ? u : 1.f;
}

// Linear light of an sRGB value in 0-1, between the entries of a table.
__device__ __forceinline__ float linear(float u, const float* table) {
  const float place = __fmul_rn(u, (float)STEPS);
  float whole = floorf(place);
  whole = whole < STEPS - 1.f ? whole : STEPS - 1.f;
  const float before = table[(int)whole];
  return before + __fmul_rn(table[(int)whole + 1] - before, place - whole);
}

__device__ __forceinline__ float halley(float y, float t) {
  const float cube = __fmul_rn(__fmul_rn(y, y), y);
  return __fmul_rn(y, cube + (t + t)) / ((cube + cube) + t);
}

// CIE's f: the cube root by two of Halley's steps, or below the knee a line.
__device__ __forceinline__ float curve(float t) {
  const int guess = (int)__fmul_rn((float)__float_as_int(t), (float)(1.0 / 3.0)) + CBRT;
  const float root = halley(halley(__int_as_float(guess), t), t);
  return t > 0.008856f ? root : __fmul_rn(7.787f, t) + (float)(16.0 / 116.0);
}

__device__ __forceinline__ float dot3(const float* m, float r, float g, float b) {
  return (__fmul_rn(m[0], r) + __fmul_rn(m[1], g)) + __fmul_rn(m[2], b);
}

extern "C" __global__ void __launch_bounds__(THREADS) slic_convert(
    const pixel* __restrict__ image,    // [images, pixels, C]
    const int32_t* __restrict__ range,  // [images, 2]
    const float* __restrict__ table,    // [STEPS + 1], then [3, 3]: to XYZ by the white point; null unless Lab
    int16_t* __restrict__ planes,       // [images, C, pixels]
    int64_t images, int64_t pixels, int channels) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= images * pixels) return;
  const int64_t b = i / pixels, p = i - b * pixels;
  const float low = from_ordered(range[2 * b]), high = from_ordered(range[2 * b + 1]);
  const float scale = range[2 * b] < range[2 * b + 1] ? 1.f / (high - low) : 1.f;
  const pixel* from = image + i * channels;
  int16_t* to = planes + b * channels * pixels + p;
  if (!table) {
    for (int c = 0; c < channels; ++c)
      to[c * pixels] = (int16_t)rintf(__fmul_rn(unit((float)from[c], low, scale), UNIT));
    return;
  }
  float light[3], f[3];
#pragma unroll
  for (int c = 0; c < 3; ++c) light[c] = linear(unit((float)from[c], low, scale), table);
#pragma unroll
  for (int c = 0; c < 3; ++c) f[c] = curve(dot3(table + STEPS + 1 + 3 * c, light[0], light[1], light[2]));
  to[0] = (int16_t)rintf(__fmul_rn(f[1], 116 * LAB_UNIT) - 16 * LAB_UNIT);
  to[pixels] = (int16_t)rintf(__fmul_rn(f[0] - f[1], 500 * LAB_UNIT));
  to[2 * pixels] = (int16_t)rintf(__fmul_rn(f[1] - f[2], 200 * LAB_UNIT));
}

// An index beyond the ends of n things, mirrored there.
__device__ __forceinline__ int reflected(int64_t i, int n) {
  i = (i % (2 * (int64_t)n) + 2 * (int64_t)n) % (2 * (int64_t)n);
  return (int)(i < n ? i : 2 * (int64_t)n - 1 - i);
}

// Colours under a Gaussian along y, and then (`along`) along x, rounded.
extern "C" __global__ void __launch_bounds__(THREADS) slic_smooth(
    int16_t* __restrict__ planes,       // [images * C, H, W]
    float* __restrict__ between,        // [images * C, H, W]
    const float* __restrict__ weights,  // [2 radius + 1]
    int64_t planes_count, int height, int width, int radius, int along) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= planes_count * height * width) return;
  const int x = (int)(i % width), y = (int)(i / width % height);
  float total = 0;
  if (along) {
    const float* row = between + (i - x);
    for (int j = -radius; j <= radius; ++j)
      total = total + __fmul_rn(row[reflected((int64_t)x + j, width)], weights[j + radius]);
    planes[i] = (int16_t)rintf(total);
  } else {
    const int16_t* column = planes + (i - (int64_t)y * width);
    for (int j = -radius; j <= radius; ++j)
      total = total + __fmul_rn((float)column[(int64_t)reflected((int64_t)y + j, height) * width], weights[j + radius]);
    between[i] = total;
  }
}

// ---- k-means ------------------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS) slic_means(
    uint64_t* __restrict__ sums, const unsigned* __restrict__ most,  // [images * K, 3 + C], [images * K]
    float* __restrict__ centre,                                      // [images * K, 3 + C]
    int64_t clusters, int channels) {
  const int64_t k = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (k >= clusters) return;
  uint64_t* s = sums + k * (3 + channels);
  float* c = centre + k * (3 + channels);
  c[2] = ZERO ? 1.f / __uint_as_float(most[k]) : 1.f;
  const double n = (double)s[0];
  for (int j = 1; j < 3 + channels; ++j) {  // one without pixels stays where it is
    if (n > 0) c[j < 3 ? j - 1 : j] = (float)((double)(int64_t)s[j] / n);
    s[j] = 0;
  }
  s[0] = 0;
}

// The first of the clusters that a block can reach.
struct Corner {
  int row, column;
};

// Each visited pixel to the nearest of its nine clusters (or, at `first`, to its cell), and into that one's sums. A
// block has its own sums of local_rows x local_columns clusters from a corner on; with none, all go to those in `sums`.
extern "C" __global__ void __launch_bounds__(TILE * TILE / DEEP, 3) slic_assign(
    const int16_t* __restrict__ planes,      // [images, C, H, W]
    const unsigned char* __restrict__ mask,  // [images, H, W] or null
    const float* __restrict__ centre,        // [images, K, 3 + C]
    int32_t* __restrict__ labels,            // [images, H, W] or null
    uint64_t* __restrict__ sums,             // [images, K, 3 + C] or null
    unsigned* __restrict__ most,             // [images, K]
    const int32_t* __restrict__ cells,       // [H + 2 W]
    int64_t images, int channels_given, int height, int width, int rows, int columns, float weight, int step, int phase,
    int first, int local_rows, int local_columns) {
  extern __shared__ __align__(16) int local[];  // [local_rows * local_columns, 3 + C + 1]
  const int channels = CHANNELS ? CHANNELS : channels_given;
  const int fields = 3 + channels;
  const int tiles = (width + TILE - 1) / TILE, x0 = (int)(blockIdx.x % tiles) * TILE, x = x0 + threadIdx.x;
  const int visited = (height - phase + step - 1) / step;
  const int top = (int)(blockIdx.x / tiles) * TILE, mine = top + threadIdx.y * DEEP;
  const int y0 = phase + step * top;  // the first row of the tile: places are kept as distances from it
  const int slots = local_rows * local_columns;
  const int thread = threadIdx.y * TILE + threadIdx.x, threads = TILE * TILE / DEEP;
  Corner corner;
  corner.row = max(cells[y0] - 1, 0);
  corner.column = max(min(cells[height + x0], cells[height + width + x0]) - 1, 0);
  const int64_t size = (int64_t)height * width, clusters = (int64_t)rows * columns;
  for (int64_t b = blockIdx.y; b < images; b += gridDim.y) {
    const int16_t* colour = planes + b * channels * size;
    const float* means = centre + b * clusters * fields;
    for (int i = thread; i < slots * (fields + 1); i += threads) local[i] = 0;
    __syncthreads();

    int own = -1, count = 0, sum_y = 0, sum[FIXED];  // of pixels of one cluster beneath one another
    float widest = 0;
#pragma unroll
    for (int c = 0; c < FIXED; ++c) sum[c] = 0;
    auto flush = [&]() {
      if (own < 0) return;
      const int i = own / columns - corner.row, j = own % columns - corner.column;
      int* slot = local + (i * local_columns + j) * (fields + 1);
      atomicAdd(slot, count);
      atomicAdd(slot + 1, sum_y);
      atomicAdd(slot + 2, count * (x - x0));
#pragma unroll
      for (int c = 0; c < FIXED; ++c) {
        if (CHANNELS) atomicAdd(slot + 3 + c, sum[c]);
        sum[c] = 0;
      }
      if (ZERO && !first) atomicMax((unsigned*)slot + fields, __float_as_uint(widest));
      count = sum_y = 0;
      widest = 0;
    };
    auto add = [&](int k, int y, const int (&value)[FIXED], float off) {
      if (k < 0) return;
      if (slots) {
        if (k != own) {
          flush();
          own = k;
        }
        ++count;
        sum_y += y - y0;
        widest = fmaxf(widest, off);
        if (CHANNELS) {
#pragma unroll
          for (int c = 0; c < FIXED; ++c) sum[c] += value[c];
        } else {
          const int i = k / columns - corner.row, j = k % columns - corner.column;
          int* slot = local + (i * local_columns + j) * (fields + 1) + 3;
          for (int c = 0; c < channels; ++c) atomicAdd(slot + c, (int)colour[c * size + (int64_t)y * width + x]);
        }
      } else {  // cells are too small for a block's memory
        uint64_t* slot = sums + (b * clusters + k) * fields;
        atomicAdd(slot, (uint64_t)1);
        atomicAdd(slot + 1, (uint64_t)y);
        atomicAdd(slot + 2, (uint64_t)x);
        for (int c = 0; c < channels; ++c)
          atomicAdd(slot + 3 + c, (uint64_t)(int64_t)colour[c * size + (int64_t)y * width + x]);
        if (ZERO && !first) atomicMax(most + b * clusters + k, __float_as_uint(off));
      }
    };

    if (x < width) {
      const int column = cells[height + width + x];
      int row = -1, k[AROUND];
      float at_y[AROUND], at_x[AROUND], factor[AROUND], mean[AROUND][FIXED];
      auto around = [&](int i, int j, int m) {
        return min(max(i + m / 3 - 1, 0), rows - 1) * columns + min(max(j + m % 3 - 1, 0), columns - 1);
      };
      for (int r = mine; r < min(mine + DEEP, visited); ++r) {
        const int y = phase + step * r;
        const int64_t p = (int64_t)y * width + x;
        int value[FIXED];
#pragma unroll
        for (int c = 0; c < FIXED; ++c) value[c] = CHANNELS ? colour[c * size + p] : 0;
        int chosen;
        float off = 0;
        const int here = cells[y];
        if (first) {
          chosen = here * columns + cells[height + x];
        } else {
          if (CHANNELS && here != row) {
            row = here;
#pragma unroll
            for (int m = 0; m < AROUND; ++m) {
              k[m] = around(here, column, m);
              const float* from = means + (int64_t)k[m] * fields;
              at_y[m] = from[0];
              at_x[m] = from[1];
              factor[m] = from[2];
#pragma unroll
              for (int c = 0; c < FIXED; ++c) mean[m][c] = from[3 + c];
            }
          }
          float best = 0;
          chosen = -1;
#pragma unroll AROUND
          for (int m = 0; m < 9; ++m) {
            const int cluster = CHANNELS ? k[m] : around(here, column, m);
            const float* from = means + (int64_t)cluster * fields;
            float total = 0;
            if (CHANNELS) {
#pragma unroll
              for (int c = 0; c < FIXED; ++c) {
                const float d = (float)value[c] - mean[m][c];
                total = total + __fmul_rn(d, d);
              }
            } else {
              for (int c = 0; c < channels; ++c) {
                const float d = (float)colour[c * size + p] - from[3 + c];
                total = total + __fmul_rn(d, d);
              }
            }
            const float dy = (float)y - (CHANNELS ? at_y[m] : from[0]), dx = (float)x - (CHANNELS ? at_x[m] : from[1]);
            const float away = __fmul_rn(__fmul_rn(dy, dy) + __fmul_rn(dx, dx), weight);
            const float d = (ZERO ? __fmul_rn(total, CHANNELS ? factor[m] : from[2]) : total) + away;
            if (m == 0 || d < best) {
              best = d;
              chosen = cluster;
              off = total;
            }
          }
        }
        if (mask && !mask[b * size + p]) chosen = -1;
        if (labels) labels[b * size + p] = chosen;
        if (sums) add(chosen, y, value, off);
      }
      if (sums && slots) flush();
    }
    __syncthreads();
    for (int i = thread; sums && i < slots; i += threads) {
      const int* slot = local + i * (fields + 1);
      const int64_t n = slot[0];
      if (!n) continue;
      const int row = corner.row + i / local_columns, column = corner.column + i % local_columns;
      const int64_t cluster = b * clusters + (int64_t)row * columns + column;
      uint64_t* to = sums + cluster * fields;
      atomicAdd(to, (uint64_t)n);
      atomicAdd(to + 1, (uint64_t)(slot[1] + n * y0));
      atomicAdd(to + 2, (uint64_t)(slot[2] + n * x0));
      for (int c = 0; c < channels; ++c) atomicAdd(to + 3 + c, (uint64_t)(int64_t)slot[3 + c]);
      if (ZERO && !first) atomicMax(most + cluster, (unsigned)slot[fields]);
    }
    __syncthreads();
  }
}

// ---- segments -----------------------------------------------------------------------------------------------
//
// Pixels of a segment form a tree whose edges lead to pixels before them; its root is the segment's first pixel.

// Each pixel to the first one of its run within a warp, and that one to what is left of it.
extern "C" __global__ void __launch_bounds__(THREADS) slic_link(
    const int32_t* __restrict__ labels, int32_t* __restrict__ parent,  // [images, H, W]
    int64_t images, int64_t pixels, int width) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  const int lane = threadIdx.x % 32;
  const bool there = i < images * pixels;
  const int64_t p = there ? i % pixels : 0;
  const int label = there ? labels[i] : -1;
  const bool same = there && p % width > 0 && labels[i - 1] == label;
  const unsigned begins = __ballot_sync(ALL, !same || lane == 0);
  if (!there) return;
  const int start = 31 - __clz((int)(begins & (ALL >> (31 - lane))));
  parent[i] = label < 0 ? -1 : (int32_t)(lane > start ? p - (lane - start) : same ? p - 1 : p);
}

// Joins the trees of pixels above one another; where the pixels to the left are already joined, so are these.
extern "C" __global__ void __launch_bounds__(THREADS) slic_union(
    const int32_t* __restrict__ labels, int32_t* parent, int64_t images, int64_t pixels, int width) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= images * pixels) return;
  const int64_t p = i % pixels;
  const int label = labels[i];
  if (p < width || label < 0 || labels[i - width] != label) return;
  if (p % width > 0 && labels[i - 1] == label && labels[i - width - 1] == label) return;
  join(parent + (i - p), (int)p, (int)(p - width));
}

// Of clusters that need not hang together: the first pixel of each.
extern "C" __global__ void __launch_bounds__(THREADS) slic_first(
    const int32_t* __restrict__ labels, int32_t* first,  // [images, pixels], [images, K]: filled with the largest
    int64_t images, int64_t pixels, int64_t clusters) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= images * pixels || labels[i] < 0) return;
  const int64_t b = i / pixels;
  int32_t* mine = first + b * clusters + labels[i];
  const int32_t p = (int32_t)(i - b * pixels);
  if (*(volatile int32_t*)mine > p) atomicMin(mine, p);
}

// The root of each pixel, -1 outside of the mask, and 1 at roots.
extern "C" __global__ void __launch_bounds__(THREADS) slic_roots(
    const int32_t* __restrict__ labels,
    const int32_t* __restrict__ parent,  // [images, pixels], or null
    const int32_t* __restrict__ first,   // [images, K]
    int32_t* __restrict__ root, int32_t* __restrict__ flag, int64_t images, int64_t pixels, int64_t clusters) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= images * pixels) return;
  const int64_t b = i / pixels, p = i - b * pixels;
  const int label = labels[i];
  const int found = label < 0 ? -1 : parent ? root_of(parent + (i - p), (int)p) : first[b * clusters + label];
  root[i] = found;
  flag[i] = found == p;
}

// Segments by the order of their first pixels, and empty sums for each.
extern "C" __global__ void __launch_bounds__(THREADS) slic_number(
    const int32_t* __restrict__ root, const int32_t* __restrict__ rank,  // [images, pixels]; rank: roots so far
    int32_t* __restrict__ segment,                                       // [images, pixels]
    uint64_t* __restrict__ sums,                                         // [images, pixels, 1 + C] or null
    int32_t* __restrict__ pairs,                                         // [images]: how many, or null
    int64_t images, int64_t pixels, int channels) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= images * pixels) return;
  const int64_t b = i / pixels, base = b * pixels;
  const int r = root[i];
  const int s = r < 0 ? -1 : rank[base + r] - 1;
  segment[i] = s;
  for (int c = 0; sums && r == i - base && c <= channels; ++c) sums[(base + s) * (1 + channels) + c] = 0;
  if (pairs && i == base) pairs[b] = 0;
}

// Pixels and colours of each segment.
extern "C" __global__ void __launch_bounds__(THREADS) slic_add(
    const int16_t* __restrict__ planes, const int32_t* __restrict__ segment,  // [images, C, H, W], [images, H, W]
    uint64_t* __restrict__ sums,                                              // [images, pixels, 1 + C]
    int64_t images, int channels, int height, int width) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;  // a thread has DEEP rows of a column
  const int64_t stripes = (height + DEEP - 1) / DEEP, pixels = (int64_t)height * width;
  if (i >= images * stripes * width) return;
  const int64_t b = i / (stripes * width);
  const int x = (int)(i % width), y0 = (int)(i / width % stripes) * DEEP;
  const int16_t* colour = planes + b * channels * pixels;
  const int end = min(y0 + DEEP, height);
  for (int y = y0; y < end;) {
    const int64_t p = (int64_t)y * width + x;
    const int s = segment[b * pixels + p];
    int below = y + 1;
    while (below < end && segment[b * pixels + (int64_t)below * width + x] == s) ++below;
    if (s >= 0) {
      uint64_t* to = sums + (b * pixels + s) * (1 + channels);
      atomicAdd(to, (uint64_t)(below - y));
      for (int c = 0; c < channels; ++c) {
        int total = 0;
        for (int k = 0; k < below - y; ++k) total += colour[c * pixels + p + (int64_t)k * width];
        atomicAdd(to + 1 + c, (uint64_t)(int64_t)total);
      }
    }
    y = below;
  }
}

// Pairs of adjacent segments of which one is too small, in any order; each stretch of a border gives one.
extern "C" __global__ void __launch_bounds__(THREADS) slic_borders(
    const int32_t* __restrict__ segment,  // [images, H, W]
    const uint64_t* __restrict__ sums,    // [images, pixels, 1 + C]
    int32_t* __restrict__ pairs,          // [images]
    int2* __restrict__ pair,              // [images, 2 pixels]
    int64_t images, int64_t pixels, int width, int channels, int64_t least) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= images * pixels) return;
  const int64_t b = i / pixels, base = b * pixels, p = i - base;
  const int a = segment[i];
  if (a < 0) return;
  const bool small = (int64_t)sums[(base + a) * (1 + channels)] < least;
  auto offer = [&](int64_t there, int64_t before, bool follows) {
    const int s = segment[there];
    if (s < 0 || s == a) return;
    if (!small && (int64_t)sums[(base + s) * (1 + channels)] >= least) return;
    if (follows && segment[i - before] == a && segment[there - before] == s) return;
    pair[2 * base + atomicAdd(pairs + b, 1)] = make_int2(a, s);
  };
  if ((p + 1) % width) offer(i + 1, width, p >= width);
  if (p + width < pixels) offer(i + width, 1, p % width > 0);
}

// Square distance of the mean colours of two groups of segments.
__device__ __forceinline__ float apart(const uint64_t* sums, int channels, int a, int b) {
  const uint64_t *s = sums + (int64_t)a * (1 + channels), *t = sums + (int64_t)b * (1 + channels);
  const double n = (double)s[0], m = (double)t[0];
  float total = 0;
  for (int c = 1; c <= channels; ++c) {
    const float d = (float)((double)(int64_t)s[c] / n) - (float)((double)(int64_t)t[c] / m);
    total = total + __fmul_rn(d, d);
  }
  return total;
}

// Rounds in which each group that is too small joins the adjacent one of the nearest colour, until none is left.
extern "C" __global__ void __launch_bounds__(1024) slic_merge(
    const int32_t* __restrict__ rank,   // [images, pixels]: the last one is the number of segments
    uint64_t* __restrict__ sums,        // [images, pixels, 1 + C]
    const int32_t* __restrict__ pairs,  // [images]
    const int2* __restrict__ pair,      // [images, 2 pixels]
    uint64_t* __restrict__ best,        // [images, pixels]: distance and group, the nearest offer to each group
    int32_t* __restrict__ group,        // [images, pixels]
    int32_t* __restrict__ next,         // [images, pixels]
    int32_t* __restrict__ number,       // [images, pixels]: of each segment, by groups' first pixels
    int64_t pixels, int channels, int64_t least) {
  constexpr uint64_t NONE = ~(uint64_t)0;
  __shared__ int warps[32], total;
  const int64_t base = blockIdx.x * pixels;
  const int segments = rank[base + pixels - 1], count = pairs[blockIdx.x];
  const int thread = threadIdx.x, fields = 1 + channels;
  sums += base * fields;
  pair += 2 * base;
  best += base;
  group += base;
  next += base;
  number += base;
  for (int s = thread; s < segments; s += blockDim.x) {
    group[s] = s;
    best[s] = NONE;
  }
  __syncthreads();
  while (true) {  // in each round at least half of the groups that are too small join another one
    int found = 0;
    for (int e = thread; e < count; e += blockDim.x) {
      const int a = group[pair[e].x], b = group[pair[e].y];
      if (a == b) continue;
      const bool small = (int64_t)sums[(int64_t)a * fields] < least, other = (int64_t)sums[(int64_t)b * fields] < least;
      if (!small && !other) continue;
      const uint64_t d = (uint64_t)__float_as_uint(apart(sums, channels, a, b)) << 32;
      if (small) atomicMin(best + a, d | (unsigned)b);
      if (other) atomicMin(best + b, d | (unsigned)a);
      found = 1;
    }
    if (!__syncthreads_or(found)) break;
    for (int s = thread; s < segments; s += blockDim.x) {  // of two that chose each other, the first stays
      int to = s;
      if (best[s] != NONE) {
        to = (int)(unsigned)best[s];
        if (s < to && best[to] != NONE && (int)(unsigned)best[to] == s) to = s;
      }
      next[s] = to;
    }
    __syncthreads();
    for (int s = thread; s < segments; s += blockDim.x) {
      const int g = group[s];
      int to = g;
      while (next[to] != to) to = next[to];
      number[s] = to;
      if (g == s && to != s)
        for (int c = 0; c < fields; ++c) atomicAdd(sums + (int64_t)to * fields + c, sums[(int64_t)s * fields + c]);
    }
    __syncthreads();
    for (int s = thread; s < segments; s += blockDim.x) {
      group[s] = number[s];
      best[s] = NONE;
    }
    __syncthreads();
  }
  for (int s = thread; s < segments; s += blockDim.x) next[s] = segments;
  if (thread == 0) total = 0;
  __syncthreads();
  for (int s = thread; s < segments; s += blockDim.x) atomicMin(next + group[s], s);
  __syncthreads();
  for (int start = 0; start < segments; start += blockDim.x) {  // ranks of groups by their first segments
    const int s = start + thread;
    const bool leads = s < segments && next[group[s]] == s;
    const unsigned vote = __ballot_sync(ALL, leads);
    if (thread % 32 == 0) warps[thread / 32] = __popc(vote);
    __syncthreads();
    int before = total;
    for (int w = 0; w < thread / 32; ++w) before += warps[w];
    if (leads) number[s] = before + __popc(vote & ((1u << (thread % 32)) - 1));
    __syncthreads();
    if (thread == blockDim.x - 1) total = before + __popc(vote);
    __syncthreads();
  }
  for (int s = thread; s < segments; s += blockDim.x) group[s] = number[next[group[s]]];
}

extern "C" __global__ void __launch_bounds__(THREADS) slic_write(
    const int32_t* __restrict__ segment,  // [images, pixels]
    const int32_t* __restrict__ number,   // [images, pixels]: of each segment, or null
    int64_t* __restrict__ out,            // [images, pixels]
    int64_t images, int64_t pixels, int first) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= images * pixels) return;
  const int s = segment[i];
  const int64_t base = i / pixels * pixels;
  out[i] = s < 0 ? first - 1 : first + (number ? number[base + s] : s);
}
