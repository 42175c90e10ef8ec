// A checkpoint folder in the released layout, memory-mapped: config.json, and model.safetensors or shards with an
// index.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nextstep_rt/config.h"
#include "nextstep_rt/tensor.h"

namespace nsrt {

class Checkpoint {
 public:
  // Opens and checks the folder: every header, every offset, every shape against the config. No weight is read.
  // Throws CheckpointError.
  explicit Checkpoint(const std::string& folder);
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;

  const ModelConfig& config() const;
  // Views into the mapping, valid as long as this object lives; a leading "model." is taken off the names.
  const TensorMap& tensors() const;
  // Absolute paths of the weight files, in the order they were opened.
  const std::vector<std::string>& files() const;
  // Sum of all tensors' bytes.
  std::uint64_t nbytes() const;

  // Reads every weight and returns the names of tensors holding NaN or infinity.
  // `progress(done_bytes, total_bytes)` may return false to stop early (then the list is incomplete).
  std::vector<std::string> verify(const std::function<bool(std::uint64_t, std::uint64_t)>& progress = {}) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nsrt
