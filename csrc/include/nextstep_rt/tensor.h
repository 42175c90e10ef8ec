// Borrowed, typed views of memory: what weights are handed to the engine as.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace nsrt {

enum class DType { kFloat32, kBFloat16 };

constexpr std::size_t item_size(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }
constexpr const char* name_of(DType dtype) { return dtype == DType::kFloat32 ? "float32" : "bfloat16"; }

// A dense, row-major array owned by somebody else. `data` is aligned to its item size.
struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;

  std::int64_t numel() const {
    std::int64_t n = 1;
    for (std::int64_t d : shape) n *= d;
    return n;
  }
  std::size_t nbytes() const { return static_cast<std::size_t>(numel()) * item_size(dtype); }
};

// Name -> view, with the names of the released checkpoints (docs/checkpoint.md).
using TensorMap = std::map<std::string, TensorView>;

}  // namespace nsrt
