// Our own definitions of the functions that -fsanitize=thread and -fsanitize=undefined call.
// libtsan and libubsan are not linked, so plain Python can load the kernels.
#include <stdint.h>
#include <string.h>

#include "checker.h"

#define EXPORT extern "C" __attribute__((visibility("default")))
#define PLACE place_of_pc(__builtin_return_address(0))

// ---- -fsanitize=thread: one call before every load and store

// Only global memory promises anything about volatile accesses.
static AccessKind volatile_read(const void* p) {
  return checker_is_shared(p) ? PLAIN_READ : ATOMIC_READ;
}

static AccessKind volatile_write(const void* p) {
  return checker_is_shared(p) ? PLAIN_WRITE : ATOMIC_WRITE;
}

// The compiler knows no alignment for these accesses, so none is demanded.
static void access_range(void* begin, size_t bytes, AccessKind kind, uint32_t place) {
  auto* p = (char*)begin;
  for (char* end = p + bytes; p < end;) {
    unsigned step = 1;
    while (step < 16 && (uintptr_t)p % (2 * step) == 0 && (size_t)(end - p) >= 2 * step) step *= 2;
    checker_access(p, step, kind, place);
    p += step;
  }
}

#define ACCESS(CALL, NAME, KIND)                                             \
  EXPORT void __tsan_##NAME##1(void* p) { CALL(p, 1, KIND, PLACE); }         \
  EXPORT void __tsan_##NAME##2(void* p) { CALL(p, 2, KIND, PLACE); }         \
  EXPORT void __tsan_##NAME##4(void* p) { CALL(p, 4, KIND, PLACE); }         \
  EXPORT void __tsan_##NAME##8(void* p) { CALL(p, 8, KIND, PLACE); }         \
  EXPORT void __tsan_##NAME##16(void* p) { CALL(p, 16, KIND, PLACE); }

ACCESS(checker_access, read, PLAIN_READ)
ACCESS(checker_access, write, PLAIN_WRITE)
ACCESS(checker_access, volatile_read, volatile_read(p))
ACCESS(checker_access, volatile_write, volatile_write(p))
ACCESS(access_range, unaligned_read, PLAIN_READ)
ACCESS(access_range, unaligned_write, PLAIN_WRITE)
ACCESS(access_range, unaligned_volatile_read, volatile_read(p))
ACCESS(access_range, unaligned_volatile_write, volatile_write(p))

EXPORT void __tsan_read_range(void* p, size_t n) { access_range(p, n, PLAIN_READ, PLACE); }
EXPORT void __tsan_write_range(void* p, size_t n) { access_range(p, n, PLAIN_WRITE, PLACE); }
EXPORT void __tsan_init() {}
EXPORT void __tsan_func_entry(void*) {}
EXPORT void __tsan_func_exit() {}

// ---- -fsanitize=undefined: calls with a description of the fault and its line

namespace {

struct Location {
  const char* file;
  uint32_t line, column;
};

struct Type {
  uint16_t kind, info;
  char name[1];

  bool is_signed() const { return info & 1; }
  bool is_inline() const { return (1u << (info >> 1)) <= 8 * sizeof(uintptr_t); }
};

struct IndexFault {
  Location where;
  const Type* array;
  const Type* index;
};

struct ShiftFault {
  Location where;
  const Type* value;
  const Type* amount;
};

struct OverflowFault {
  Location where;
  const Type* type;
};

struct PointerFault {
  Location where;
  const Type* type;
  unsigned char log_alignment;
  unsigned char use;
};

HostSite site(const Location& where) { return {where.file, (int)where.line}; }

long long value_of(const Type& type, uintptr_t value) {
  unsigned bits = 1u << (type.info >> 1);
  if (!type.is_inline() || !type.is_signed() || bits >= 64) return (long long)value;
  return (long long)(value << (64 - bits)) >> (64 - bits);
}

void report_overflow(const OverflowFault& fault, const char* operation) {
  host_fail(site(fault.where), "signed overflow of %s in %s", fault.type->name, operation);
}

}  // namespace

EXPORT void __ubsan_handle_out_of_bounds(IndexFault* fault, uintptr_t index) {
  host_fail(site(fault->where), "array index %lld out of range for %s",
            value_of(*fault->index, index), fault->array->name);
}

EXPORT void __ubsan_handle_shift_out_of_bounds(ShiftFault* fault, uintptr_t, uintptr_t amount) {
  host_fail(site(fault->where), "shift of %s by %lld", fault->value->name,
            value_of(*fault->amount, amount));
}

EXPORT void __ubsan_handle_divrem_overflow(OverflowFault* fault, uintptr_t, uintptr_t divisor) {
  if (value_of(*fault->type, divisor) == 0)
    host_fail(site(fault->where), "integer division by zero");
  report_overflow(*fault, "a division");
}

EXPORT void __ubsan_handle_add_overflow(OverflowFault* fault, uintptr_t, uintptr_t) {
  report_overflow(*fault, "an addition");
}

EXPORT void __ubsan_handle_sub_overflow(OverflowFault* fault, uintptr_t, uintptr_t) {
  report_overflow(*fault, "a subtraction");
}

EXPORT void __ubsan_handle_mul_overflow(OverflowFault* fault, uintptr_t, uintptr_t) {
  report_overflow(*fault, "a multiplication");
}

EXPORT void __ubsan_handle_negate_overflow(OverflowFault* fault, uintptr_t) {
  report_overflow(*fault, "a negation");
}

EXPORT void __ubsan_handle_type_mismatch_v1(PointerFault* fault, uintptr_t pointer) {
  if (!pointer) host_fail(site(fault->where), "null pointer to %s", fault->type->name);
  auto alignment = (uintptr_t)1 << fault->log_alignment;
  if (pointer % alignment)
    host_fail(site(fault->where), "misaligned access: %s needs %u bytes, the address is off by %u",
              fault->type->name, (unsigned)alignment, (unsigned)(pointer % alignment));
  host_fail(site(fault->where), "the object is too small for %s", fault->type->name);
}
