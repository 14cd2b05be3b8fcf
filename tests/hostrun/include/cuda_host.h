// Everything a kernel may use, included in front of its unmodified text.
#pragma once
#define CV3_HOST 1
#include "types.h"
#include "runtime_api.h"
#include "warp.h"
#include "atomics.h"
#include "scalar_math.h"
#include "tensor.h"
#include "launch_glue.h"

#define HOST_DYNAMIC_SHARED(T, NAME) T* NAME = (T*)host_dynamic_shared()
