// How the runtime calls a kernel and learns its signature; used by the tail pasted behind a kernel.
#pragma once
#include <cxxabi.h>
#include <stdio.h>
#include <stdlib.h>

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

template <class T>
inline int host_describe(char* text, size_t room) {
  char* name = abi::__cxa_demangle(typeid(T).name(), nullptr, nullptr, nullptr);
  int length = snprintf(text, room, "%c|%zu|%s\n", host_kind<T>(), sizeof(T), name ? name : "?");
  free(name);
  return length;
}

// Not local to the function below: there, a static variable would count as __shared__.
static char host_signature_text[8192];

// Lines of kind|size|type, one for each parameter.
template <class... Args>
inline const char* host_signature(void (*)(Args...)) {
  char* text = host_signature_text;
  size_t room = sizeof host_signature_text, used = 0;
  text[0] = 0;
  ((used += host_describe<std::remove_cv_t<Args>>(text + used, room - used)), ...);
  return text;
}

template <class... Args, size_t... I>
HOST_RAW inline void host_call(void (*kernel)(Args...), void** args, std::index_sequence<I...>) {
  kernel(*(std::remove_cv_t<Args>*)args[I]...);
}

template <class... Args>
HOST_RAW inline void host_invoke(void (*kernel)(Args...), void** args) {
  host_call(kernel, args, std::index_sequence_for<Args...>{});
}

#define HOST_ENTRY(INDEX, KERNEL, MAX_THREADS)                                                  \
  extern "C" __attribute__((visibility("default"))) HOST_RAW void host_entry_##INDEX(void** a) { \
    host_invoke(KERNEL, a);                                                                     \
  }                                                                                             \
  extern "C" __attribute__((visibility("default"))) const char* host_signature_##INDEX() {      \
    return host_signature(KERNEL);                                                              \
  }                                                                                             \
  extern "C" __attribute__((visibility("default"))) unsigned host_max_threads_##INDEX() {       \
    return (unsigned)(MAX_THREADS);                                                             \
  }
