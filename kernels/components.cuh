/* components.cuh: connected components by union-find. A tree's edges lead to smaller numbers, so that its root is the
 * smallest number of the component, in whatever order the trees are joined.
 */
#pragma once

__device__ __forceinline__ int root_of(const volatile int32_t* parent, int p) {
  for (int above = parent[p]; above != p; above = parent[p]) p = above;
  return p;
}

// Joins the trees of two vertices; each turn brings the larger root down.
__device__ __forceinline__ void join(int32_t* parent, int p, int q) {
  int a = root_of(parent, p), b = root_of(parent, q);
  while (a != b) {
    if (a < b) {
      const int swap = a;
      a = b;
      b = swap;
    }
    const int before = atomicMin(parent + a, b);
    if (before == a) break;
    a = root_of(parent, before);
    b = root_of(parent, b);
  }
}
