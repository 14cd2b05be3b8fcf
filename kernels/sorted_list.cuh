/* sorted_list.cuh: the least numbers seen so far and what they belong to, 64 at most, over the lanes of a warp.
 *
 * A full list turns most newcomers away by one comparison with its last number, and takes another in by two votes and
 * some shuffles. Idea: J. Johnson, M. Douze, H. Jegou, Billion-scale similarity search with GPUs, 2017.
 */
#pragma once
#include "scalar.cuh"

// Ascending: `low` holds the first 32 of a list, a lane each, and `high` the others. All lanes of a warp take part.
template <class T>
struct SortedList {
  static constexpr unsigned ALL = 0xffffffffu;
  T low, high;
  int low_index, high_index;

  __device__ __forceinline__ void clear(T upto) {
    low = high = upto;
    low_index = high_index = -1;
  }

  // The last of the first `keep`: what is not less has no place in the list.
  __device__ __forceinline__ T last(int keep) const {
    return __shfl_sync(ALL, keep > 32 ? high : low, (keep - 1) % 32);
  }
  __device__ __forceinline__ int last_index(int keep) const {
    return __shfl_sync(ALL, keep > 32 ? high_index : low_index, (keep - 1) % 32);
  }

  // Puts a number behind those that are not greater.
  __device__ __forceinline__ void insert(T v, int index) {
    const int lane = threadIdx.x % 32;
    const int at = __popc(__ballot_sync(ALL, low <= v)) + __popc(__ballot_sync(ALL, high <= v));
    const T before = __shfl_up_sync(ALL, low, 1), edge = __shfl_sync(ALL, low, 31);
    const int before_index = __shfl_up_sync(ALL, low_index, 1), edge_index = __shfl_sync(ALL, low_index, 31);
    const T above = __shfl_up_sync(ALL, high, 1);
    const int above_index = __shfl_up_sync(ALL, high_index, 1);
    if (lane >= at) {
      low = lane == at ? v : before;
      low_index = lane == at ? index : before_index;
    }
    if (lane + 32 >= at) {
      high = lane + 32 == at ? v : lane == 0 ? edge : above;
      high_index = lane + 32 == at ? index : lane == 0 ? edge_index : above_index;
    }
  }

  // Takes those of the lanes' numbers that are less than the last, lane by lane.
  __device__ __forceinline__ void absorb(T& bound, int keep, T mine, int index) {
    unsigned left = __ballot_sync(ALL, mine < bound);
    while (left) {
      const int from = __ffs(left) - 1;
      left &= left - 1;
      const T v = __shfl_sync(ALL, mine, from);
      const int its = __shfl_sync(ALL, index, from);
      if (v < bound) {
        insert(v, its);
        bound = last(keep);
      }
    }
  }
};
