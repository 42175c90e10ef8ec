// Search for NaN and infinity.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "nextstep_rt/tensor.h"

namespace nsrt {

// False if any of the `count` numbers at `data` is NaN or infinite.
bool all_finite(const void* data, std::size_t count, DType dtype);

// Reads every tensor of the files, front to back, and returns the stored names of those that hold NaN or infinity.
// `progress(done_bytes, total_bytes)` is called about every 64 MB and at the end; false from it stops the search.
std::vector<std::string> find_non_finite(const std::vector<SafetensorsFile>& files,
                                         const std::function<bool(std::uint64_t, std::uint64_t)>& progress);

}  // namespace nsrt
