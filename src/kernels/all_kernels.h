#pragma once

// Every kernel, for the files that make entries of them.

#include "attention.h"
#include "gemm.h"
#include "kv_cache.h"
#include "lora.h"
#include "moe.h"
#include "numbers.h"
#include "pictures.h"
#include "rows.h"
#include "sample.h"
