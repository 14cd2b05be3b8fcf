/* resize_conv.cuh: which results a block of a resize-convolution computes, and what they take from.
 *
 * Along an axis result p takes from elements base[p] + k step, k < length, with weights of its kind. Results of one kind
 * of rows, and of `period` kinds of columns that repeat, are a job: columns first + k period + i, k < repeats, i < count.
 * A block does TILE pairs (row, k) of a job, for each i in turn; what it found leaves together, so that columns that lie
 * side by side are written side by side.
 *
 * With TAPS = 0 the elements are those of the source. Else they are those of its enlarged image: element e of an axis is
 * the sum of TAPS elements of the source, by tables. Elements outside are zeros.
 */
#pragma once
#include "scalar.cuh"

using accum = accumulate<real>::type;

struct Job {
  int tile_begin, row_begin, row_count, row_kind, first, period, repeats, count;
};

// All integers that describe the two axes, one array behind the other.
struct Tables {
  const Job* jobs;
  const int *row_order, *row_base, *col_base, *col_kind, *row_length, *col_length;

  __device__ __forceinline__ static Tables of(const int* all, int jobs, int rows, int cols, int row_kinds) {
    const int* order = all + jobs * (int)(sizeof(Job) / sizeof(int));
    const int *base = order + rows, *col_base = base + rows, *kind = col_base + cols, *length = kind + cols;
    return {(const Job*)all, order, base, col_base, kind, length, length + row_kinds};
  }

  // The last job that begins at or before a tile.
  __device__ __forceinline__ Job find(int tile, int jobs) const {
    int low = 0, high = jobs - 1;
    while (low < high) {
      const int middle = (low + high + 1) >> 1;
      if (jobs_begin(middle) <= tile) low = middle;
      else high = middle - 1;
    }
    return this->jobs[low];
  }
  __device__ __forceinline__ int jobs_begin(int k) const { return jobs[k].tile_begin; }
};

// A row of the result, and which repeat of the period; `inside` is false past the last one.
struct Place {
  int row, repeat;
  bool inside;

  __device__ __forceinline__ static Place at(const Tables& tables, const Job& job, int index) {
    const int line = (int)((unsigned)index / (unsigned)job.repeats);
    const bool inside = line < job.row_count;
    return {tables.row_order[job.row_begin + (inside ? line : 0)], index - line * job.repeats, inside};
  }
};

// The tables of an enlarged image: index and weight of element e are at [e * TAPS + k], first rows, then columns.
struct Samples {
  const int *row_index, *col_index;
  const accum *row_weight, *col_weight;

  __device__ __forceinline__ static Samples of(const int* index, const accum* weight, int rows) {
    return {index, index + (int64_t)rows * TAPS, weight, weight + (int64_t)rows * TAPS};
  }
};

// Results of TILE places x `count` columns, [channel][place * count + column] in shared memory, to where they belong.
template <int TILE, int CHANNELS>
__device__ __forceinline__ void flush(const real* stage, int pitch, const Place* places, const Job& job, real* image,
                                      int channels, int64_t result_c, int64_t result_h, int64_t result_w) {
  const int width = TILE * job.count;
  auto at = [&](int e, bool& inside) {
    const int place = (int)((unsigned)e / (unsigned)job.count), i = e - place * job.count;
    const Place p = places[place];
    inside = p.inside;
    return image + p.row * result_h + (int64_t)(job.first + p.repeat * job.period + i) * result_w;
  };
  if (result_c == 1) {  // threads side by side in channels
    const int c = threadIdx.x % CHANNELS;
    for (int e = threadIdx.x / CHANNELS; e < width; e += 256 / CHANNELS) {
      bool inside;
      real* to = at(e, inside);
      if (inside && c < channels) to[c] = stage[c * pitch + e];
    }
  } else {  // and in columns
    for (int e = threadIdx.x % min(width, 256); e < width; e += 256) {
      const int together = max(1, 256 / width), first = threadIdx.x / min(width, 256);
      bool inside;
      real* to = at(e, inside);
      if (!inside || first >= together) continue;
      for (int c = first; c < min(channels, CHANNELS); c += together) to[c * result_c] = stage[c * pitch + e];
    }
  }
}
