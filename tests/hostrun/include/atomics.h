// Atomics, fences and loads or stores with a cache hint.
#pragma once
#include <type_traits>

#include "runtime_api.h"

// Threads are fibers of one OS thread and switch only inside the runtime, so a plain read and write
// after the call that announces them is atomic.
#define HOST_ATOMIC(NAME, CONDITION, RESULT)                                                  \
  template <class T, class U>                                                                 \
  HOST_RAW inline T NAME(T* address, U operand, HostSite site = HostSite::here()) {           \
    static_assert(CONDITION, #NAME ": unsupported type");                                     \
    T value = (T)operand;                                                                     \
    host_atomic(address, sizeof(T), site);                                                    \
    T old = *address;                                                                         \
    *address = (T)(RESULT);                                                                   \
    return old;                                                                               \
  }                                                                                           \
  template <class T, class U>                                                                 \
  inline T NAME##_block(T* address, U operand, HostSite site = HostSite::here()) {            \
    return NAME(address, operand, site);                                                      \
  }                                                                                           \
  template <class T, class U>                                                                 \
  inline T NAME##_system(T* address, U operand, HostSite site = HostSite::here()) {           \
    return NAME(address, operand, site);                                                      \
  }

#define HOST_WORD (sizeof(T) == 4 || sizeof(T) == 8)
#define HOST_INTEGER (std::is_integral<T>::value && HOST_WORD)
HOST_ATOMIC(atomicAdd, std::is_arithmetic<T>::value && HOST_WORD, old + value)
HOST_ATOMIC(atomicExch, std::is_arithmetic<T>::value && HOST_WORD, value)
HOST_ATOMIC(atomicSub, HOST_INTEGER && sizeof(T) == 4, old - value)
HOST_ATOMIC(atomicMin, HOST_INTEGER, old < value ? old : value)
HOST_ATOMIC(atomicMax, HOST_INTEGER, old > value ? old : value)
HOST_ATOMIC(atomicAnd, HOST_INTEGER, old & value)
HOST_ATOMIC(atomicOr, HOST_INTEGER, old | value)
HOST_ATOMIC(atomicXor, HOST_INTEGER, old ^ value)
HOST_ATOMIC(atomicInc, (std::is_same<T, unsigned>::value), old >= value ? 0 : old + 1)
HOST_ATOMIC(atomicDec, (std::is_same<T, unsigned>::value),
            (old == 0 || old > value) ? value : old - 1)
#undef HOST_INTEGER
#undef HOST_WORD
#undef HOST_ATOMIC

template <class T, class U, class V>
HOST_RAW inline T atomicCAS(T* address, U compare, V value, HostSite site = HostSite::here()) {
  static_assert(std::is_integral<T>::value && sizeof(T) >= 2, "atomicCAS: unsupported type");
  host_atomic(address, sizeof(T), site);
  T old = *address;
  if (old == (T)compare) *address = (T)value;
  return old;
}

template <class T, class U, class V>
inline T atomicCAS_block(T* address, U compare, V value, HostSite site = HostSite::here()) {
  return atomicCAS(address, compare, value, site);
}

inline void __threadfence() { host_fence_device(); }
inline void __threadfence_system() { host_fence_device(); }
// Orders nothing between blocks, which is all that the checker's fence rule is about.
inline void __threadfence_block() {}

// clang-format off
template <class T> __forceinline__ T __ldg(const T* address) { return *address; }
template <class T> __forceinline__ T __ldca(const T* address) { return *address; }
template <class T> __forceinline__ T __ldcg(const T* address) { return *address; }
template <class T> __forceinline__ T __ldcs(const T* address) { return *address; }
template <class T> __forceinline__ T __ldlu(const T* address) { return *address; }
template <class T> __forceinline__ T __ldcv(const T* address) { return *(const volatile T*)address; }
template <class T> __forceinline__ void __stwb(T* address, T value) { *address = value; }
template <class T> __forceinline__ void __stcg(T* address, T value) { *address = value; }
template <class T> __forceinline__ void __stcs(T* address, T value) { *address = value; }
template <class T> __forceinline__ void __stwt(T* address, T value) { *address = value; }
// clang-format on
