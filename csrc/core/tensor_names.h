// The tensors that a checkpoint of a given config has.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nextstep_rt/config.h"
#include "nextstep_rt/tensor.h"

namespace nsrt {

struct TensorSpec {
  std::string name;
  // -1 stands for any positive size (the positions of gen_pos_embed, which may also have a leading 1).
  std::vector<std::int64_t> shape;
  bool required = true;
};

// Every name that the model knows, required or not, without the "model." prefix. `config` is valid.
std::vector<TensorSpec> expected_tensors(const ModelConfig& config);

// Throws one CheckpointError that sums up what is missing, unknown, misshapen, or has null or misaligned data.
void check_tensors(const ModelConfig& config, const TensorMap& tensors);

}  // namespace nsrt
