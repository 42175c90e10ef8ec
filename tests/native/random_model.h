// Small models with random weights, for tests of the engine and its backends.
#pragma once

#include <cmath>
#include <cstdint>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "core/bf16.h"
#include "core/tensor_names.h"
#include "nextstep_rt/config.h"
#include "nextstep_rt/tensor.h"

namespace nsrt::test {

inline ModelConfig small_config() {
  ModelConfig c;
  c.hidden_size = 72;  // no multiple of any vector width
  c.intermediate_size = 100;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 6;
  c.num_key_value_heads = 2;
  c.head_dim = 40;
  c.vocab_size = 50;
  c.max_position_embeddings = 1024;
  c.attention_bias = true;
  c.latent_size = 8;
  c.latent_patch_size = 2;
  c.latent_channels = 5;
  c.boi = 1;
  c.eoi = 2;
  c.image_placeholder_id = 3;
  c.pad_token_id = 0;
  c.fm_head_dim = 52;
  c.fm_head_layers = 2;
  c.fm_head_mlp_ratio = 1.5;
  return c;
}

inline std::vector<float> random_floats(std::size_t n, unsigned seed, float scale = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> out(n);
  for (float& x : out) x = normal(generator);
  return out;
}

// Owns the weights that its map points to.
class RandomModel {
 public:
  RandomModel(const ModelConfig& config, DType dtype, unsigned seed) : config_(config) {
    for (const TensorSpec& spec : expected_tensors(config)) {
      if (!spec.required) continue;
      std::vector<std::int64_t> shape = spec.shape;
      for (std::int64_t& d : shape)
        if (d < 0) d = 64;  // positions of gen_pos_embed
      TensorView view{nullptr, dtype, shape};
      const float scale = shape.size() == 2 ? 1.0f / std::sqrt(static_cast<float>(shape[1])) : 0.5f;
      const auto values = random_floats(static_cast<std::size_t>(view.numel()), seed++, scale);
      if (dtype == DType::kFloat32) {
        floats_.push_back(values);
        view.data = floats_.back().data();
      } else {
        auto& copy = halves_.emplace_back();
        for (const float x : values) copy.push_back(float_to_bf16(x));
        view.data = copy.data();
      }
      tensors_.emplace(spec.name, view);
    }
  }

  const ModelConfig& config() const { return config_; }
  const TensorMap& tensors() const { return tensors_; }

 private:
  ModelConfig config_;
  TensorMap tensors_;
  std::deque<std::vector<float>> floats_;
  std::deque<std::vector<std::uint16_t>> halves_;
};

}  // namespace nsrt::test
