// The checkpoint's tensors bound to their places in the model.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "core/memory.h"
#include "core/params.h"
#include "nextstep_rt/config.h"
#include "nextstep_rt/tensor.h"

namespace nsrt {

// A product's weight and bias; bias is null where the model has none.
struct Linear {
  Matrix w;
  const float* bias = nullptr;
};

struct LayerWeights {
  const float* input_norm = nullptr;
  Linear q, k, v, o;
  const float* post_attention_norm = nullptr;
  Linear gate, up, down;
};

struct FmBlockWeights {
  const float* norm_weight = nullptr;
  const float* norm_bias = nullptr;
  Linear fc1, fc2;    // mlp.0, mlp.2
  Linear modulation;  // [3 d_fm, d_fm]: shift, scale, gate
};

struct FmHeadWeights {
  Linear time1, time2;  // time_embed.mlp.0, .2
  Linear cond;          // cond_embed
  Linear input;         // input_proj
  std::vector<FmBlockWeights> blocks;
  Linear final_modulation;  // [2 d_fm, d_fm]: shift, scale
  Linear output;            // final_layer.linear
};

// Matrices are views of the caller's memory, or of `converted` where the compute dtype wants another; vectors
// (norms, biases) are float32 copies.
struct ModelWeights {
  ModelConfig config;
  Matrix embed_tokens;
  std::vector<LayerWeights> layers;
  const float* norm = nullptr;
  Linear image_in, image_out;
  const float* gen_pos_embed = nullptr;  // [gen_pos_rows, hidden_size], only when the config uses it
  std::int64_t gen_pos_rows = 0;
  FmHeadWeights fm;

  std::uint64_t nbytes = 0;            // of everything bound
  std::uint64_t converted_nbytes = 0;  // of what was copied into another dtype

  std::deque<std::vector<float>> vectors;
  std::deque<Buffer<std::uint16_t>> converted;
};

// Checks `tensors` against the config, then binds them. With compute kBFloat16, float32 matrices are rounded to bf16
// copies; with kFloat32, bf16 matrices stay as they are (widening is exact). Throws CheckpointError; Error when the
// copies do not fit the memory there is.
ModelWeights bind_weights(const ModelConfig& config, const TensorMap& tensors, DType compute);

// Rows `ids` of the embedding table, widened: out [ids.size(), hidden_size].
void embed_tokens(const ModelWeights& weights, std::span<const std::int64_t> ids, float* out);

}  // namespace nsrt
