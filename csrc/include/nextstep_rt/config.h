// The shape of a NextStep-1 model, as its config.json states it.
#pragma once

#include <cstdint>
#include <string>

namespace nsrt {

struct ModelConfig {
  // Backbone (Qwen2 shape).
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;  // hidden_size / num_attention_heads where config.json has none
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  std::int64_t vocab_size = 0;
  std::int64_t max_position_embeddings = 0;
  bool attention_bias = false;    // biases of q, k, v
  bool o_attention_bias = false;  // bias of o
  bool mlp_bias = false;          // biases of gate, up, down
  bool tie_word_embeddings = false;

  // Image tokens.
  std::int64_t latent_size = 0;  // side of the native image in latent pixels
  std::int64_t latent_patch_size = 0;
  std::int64_t latent_channels = 0;
  bool use_gen_pos_embed = false;

  // Control tokens; -1 where config.json has none.
  std::int64_t boi = -1;
  std::int64_t eoi = -1;
  std::int64_t image_placeholder_id = -1;
  std::int64_t pad_token_id = -1;

  // Flow-matching head.
  std::int64_t fm_head_dim = 0;
  std::int64_t fm_head_layers = 0;
  double fm_head_mlp_ratio = 1.0;

  std::string vae_name_or_path = "vae/";

  // Numbers in one image token: latent_channels * latent_patch_size^2.
  std::int64_t token_dim() const { return latent_channels * latent_patch_size * latent_patch_size; }
  // Inner width of an FM block's MLP.
  std::int64_t fm_mlp_dim() const {
    return static_cast<std::int64_t>(static_cast<double>(fm_head_dim) * fm_head_mlp_ratio);
  }
  // Modulations of the FM head at one step: shift, scale and gate of every block, then the last layer's shift and
  // scale.
  std::int64_t fm_modulation_dim() const { return (3 * fm_head_layers + 2) * fm_head_dim; }

  // Throws CheckpointError naming the key, its value and what it must be.
  void validate() const;

  // Reads the text of a config.json (released names and those of the 2026 source), validated.
  // Throws CheckpointError.
  static ModelConfig from_json(const std::string& text);
};

}  // namespace nsrt
