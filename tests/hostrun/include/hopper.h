// Host bodies of the Hopper wrappers: mbarrier, 2-D TMA loads and wgmma m64n64k16.
#pragma once
#include "runtime_api.h"

// The place of a CUtensorMap; hostrun.TensorMap fills it.
struct alignas(64) cv3_tmap {
  void* base;
  unsigned long long columns, rows, row_bytes;
  unsigned box_columns, box_rows, item_bytes, swizzle;
  unsigned long long unused[10];
};
static_assert(sizeof(cv3_tmap) == 128, "as large as a CUtensorMap");

#pragma GCC visibility push(default)
extern "C" {
void host_mbar_init(void* barrier, int count, HostSite site);
void host_mbar_arrive(void* barrier, unsigned expected_bytes, HostSite site);
void host_mbar_wait(void* barrier, unsigned parity, HostSite site);
void host_tma_load_2d(void* dst, const cv3_tmap* map, void* barrier, int x, int y, HostSite site);
void host_wgmma_m64n64k16_bf16(float* d, const void* a, const void* b, HostSite site);
void host_wgmma_commit();
void host_wgmma_wait(unsigned newest);
}
#pragma GCC visibility pop

inline void mbar_init(unsigned long long* barrier, int count, HostSite site = HostSite::here()) {
  host_mbar_init(barrier, count, site);
}

inline void mbar_arrive(unsigned long long* barrier, HostSite site = HostSite::here()) {
  host_mbar_arrive(barrier, 0, site);
}

// Arrives and announces bytes that TMA loads will bring.
inline void mbar_expect_tx(unsigned long long* barrier, unsigned bytes,
                           HostSite site = HostSite::here()) {
  host_mbar_arrive(barrier, bytes, site);
}

inline void mbar_wait(unsigned long long* barrier, unsigned parity,
                      HostSite site = HostSite::here()) {
  host_mbar_wait(barrier, parity, site);
}

inline void tma_load_2d(void* dst, const cv3_tmap* map, unsigned long long* barrier, int x, int y,
                        HostSite site = HostSite::here()) {
  host_tma_load_2d(dst, map, barrier, x, y, site);
}

inline void wgmma_fence() {}

// a and b point into 64 x 128-byte tiles with the 128-byte swizzle.
inline void wgmma_m64n64k16_bf16(float (&d)[32], const void* a, const void* b,
                                 HostSite site = HostSite::here()) {
  host_wgmma_m64n64k16_bf16(d, a, b, site);
}

inline void wgmma_commit() { host_wgmma_commit(); }
inline void wgmma_wait(unsigned newest) { host_wgmma_wait(newest); }
