// Block barriers and warp collectives.
#pragma once
#include <string.h>

#include <type_traits>

#include "runtime_api.h"

#define threadIdx (host_thread_idx())
#define blockIdx (host_block_idx())
#define blockDim (host_block_dim())
#define gridDim (host_grid_dim())
#define warpSize 32

inline void __syncthreads(HostSite site = HostSite::here()) { host_barrier(0, 0, site); }

inline int __syncthreads_count(int predicate, HostSite site = HostSite::here()) {
  return host_barrier_vote(predicate, site).count;
}

inline int __syncthreads_and(int predicate, HostSite site = HostSite::here()) {
  return host_barrier_vote(predicate, site).all;
}

inline int __syncthreads_or(int predicate, HostSite site = HostSite::here()) {
  return host_barrier_vote(predicate, site).any;
}

inline void named_barrier_sync(unsigned id, unsigned threads, HostSite site = HostSite::here()) {
  if (threads == 0 || threads % 32) host_fail(site, "named barrier of %u threads", threads);
  host_barrier(id, threads, site);
}

inline void __syncwarp(unsigned mask = ~0u, HostSite site = HostSite::here()) {
  host_warp_sync(mask, site);
}

template <class T>
inline uint64_t host_to_bits(T value) {
  static_assert(sizeof(T) <= 8, "a lane exchanges at most 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
inline T host_exchange(unsigned mask, T value, HostShuffle kind, int operand, int width,
                       HostSite site) {
  uint64_t bits = host_shuffle(mask, host_to_bits(value), sizeof(T), kind, operand, width, site);
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
                     HostSite site = HostSite::here()) {
  return host_exchange(mask, value, HOST_SHUFFLE_INDEX, lane, width, site);
}

template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                        HostSite site = HostSite::here()) {
  return host_exchange(mask, value, HOST_SHUFFLE_UP, (int)delta, width, site);
}

template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                          HostSite site = HostSite::here()) {
  return host_exchange(mask, value, HOST_SHUFFLE_DOWN, (int)delta, width, site);
}

template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                         HostSite site = HostSite::here()) {
  return host_exchange(mask, value, HOST_SHUFFLE_XOR, lane_mask, width, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, HostSite site = HostSite::here()) {
  return host_warp_op(mask, predicate != 0, HOST_BALLOT, site);
}

inline int __any_sync(unsigned mask, int predicate, HostSite site = HostSite::here()) {
  return (int)host_warp_op(mask, predicate != 0, HOST_ANY, site);
}

inline int __all_sync(unsigned mask, int predicate, HostSite site = HostSite::here()) {
  return (int)host_warp_op(mask, predicate != 0, HOST_ALL, site);
}

template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, HostSite site = HostSite::here()) {
  return host_warp_op(mask, host_to_bits(value), HOST_MATCH_ANY, site);
}

template <class T>
inline unsigned __match_all_sync(unsigned mask, T value, int* all_equal,
                                 HostSite site = HostSite::here()) {
  unsigned lanes = host_warp_op(mask, host_to_bits(value), HOST_MATCH_ALL, site);
  *all_equal = lanes != 0;
  return lanes;
}

template <class T>
inline T host_reduce(unsigned mask, T value, HostWarpOp op, HostSite site) {
  static_assert(std::is_integral<T>::value && sizeof(T) == 4, "reductions take int or unsigned");
  return (T)host_warp_op(mask, (unsigned)value, op, site);
}

template <class T>
inline T __reduce_add_sync(unsigned mask, T value, HostSite site = HostSite::here()) {
  return host_reduce(mask, value, HOST_ADD, site);
}

template <class T>
inline T __reduce_min_sync(unsigned mask, T value, HostSite site = HostSite::here()) {
  auto op = std::is_signed<T>::value ? HOST_MIN_SIGNED : HOST_MIN_UNSIGNED;
  return host_reduce(mask, value, op, site);
}

template <class T>
inline T __reduce_max_sync(unsigned mask, T value, HostSite site = HostSite::here()) {
  auto op = std::is_signed<T>::value ? HOST_MAX_SIGNED : HOST_MAX_UNSIGNED;
  return host_reduce(mask, value, op, site);
}

template <class T>
inline T __reduce_and_sync(unsigned mask, T value, HostSite site = HostSite::here()) {
  return host_reduce(mask, value, HOST_AND, site);
}

template <class T>
inline T __reduce_or_sync(unsigned mask, T value, HostSite site = HostSite::here()) {
  return host_reduce(mask, value, HOST_OR, site);
}

template <class T>
inline T __reduce_xor_sync(unsigned mask, T value, HostSite site = HostSite::here()) {
  return host_reduce(mask, value, HOST_XOR, site);
}

inline void __nanosleep(unsigned, HostSite site = HostSite::here()) { host_yield(site); }
inline long long clock64() { return host_ticks(); }

inline void __trap(HostSite site = HostSite::here()) __attribute__((noreturn));
inline void __trap(HostSite site) { host_fail(site, "__trap()"); }

#undef assert
#define assert(condition) \
  ((condition) ? (void)0 : host_fail(HostSite::here(), "assertion failed: %s", #condition))
