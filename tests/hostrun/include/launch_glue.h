// How the runtime calls a kernel and learns its signature; used by the tail pasted behind a kernel.
#pragma once
#include <type_traits>
#include <typeinfo>
#include <utility>

#include "runtime_api.h"

// One letter for the marshaller: r read-only pointer, p pointer, f/i/u/b scalar, s struct.
template <class T>
constexpr char host_kind() {
  if constexpr (std::is_pointer<T>::value) {
    return std::is_const<std::remove_pointer_t<T>>::value ? 'r' : 'p';
  } else if constexpr (std::is_enum<T>::value) {
    return host_kind<std::underlying_type_t<T>>();
  } else if constexpr (std::is_same<T, bool>::value) {
    return 'b';
  } else if constexpr (std::is_floating_point<T>::value) {
    return 'f';
  } else if constexpr (std::is_integral<T>::value) {
    return std::is_signed<T>::value ? 'i' : 'u';
  } else {
    return 's';
  }
}

// Lines of kind|size|type, one for each parameter; the runtime writes them, as code here is
// compiled again for every kernel.
template <class... Args>
HOST_RAW inline const char* host_signature(void (*)(Args...)) {
  const HostParameter parameters[] = {
      {std::integral_constant<char, host_kind<std::remove_cv_t<Args>>()>::value, sizeof(Args),
       typeid(Args).name()}...,
      {}};
  return host_signature_text(parameters, sizeof...(Args));
}

template <class... Args, size_t... I>
HOST_RAW inline void host_call(void (*kernel)(Args...), void** args, std::index_sequence<I...>) {
  kernel(*(std::remove_cv_t<Args>*)args[I]...);
}

template <class... Args>
HOST_RAW inline void host_invoke(void (*kernel)(Args...), void** args) {
  host_call(kernel, args, std::index_sequence_for<Args...>{});
}

#define HOST_EXPORT extern "C" __attribute__((visibility("default"))) HOST_RAW
#define HOST_ENTRY(INDEX, KERNEL, MAX_THREADS)                                            \
  HOST_EXPORT void host_entry_##INDEX(void** a) { host_invoke(KERNEL, a); }               \
  HOST_EXPORT const char* host_signature_##INDEX() { return host_signature(KERNEL); }     \
  HOST_EXPORT unsigned host_max_threads_##INDEX() { return (unsigned)(MAX_THREADS); }
