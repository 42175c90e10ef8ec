#include "core/weights.h"

#include <algorithm>
#include <string>

#include "core/bf16.h"
#include "core/check.h"
#include "core/tensor_names.h"
#include "nextstep_rt/engine.h"

namespace nsrt {
namespace {

class Binder {
 public:
  Binder(const TensorMap& tensors, DType compute, ModelWeights& out)
      : tensors_(tensors), compute_(compute), out_(out) {}

  Matrix matrix(const std::string& name) {
    const TensorView& t = find(name);
    out_.nbytes += t.nbytes();
    Matrix m{t.data, t.dtype, t.shape.at(0), t.shape.at(1)};
    if (compute_ == DType::kBFloat16 && t.dtype == DType::kFloat32) {
      const auto* from = static_cast<const float*>(t.data);
      auto& copy = out_.converted.emplace_back();
      copy.reserve(static_cast<std::size_t>(t.numel()));
      std::transform(from, from + t.numel(), copy.data(), float_to_bf16);
      m.data = copy.data();
      m.dtype = DType::kBFloat16;
      out_.converted_nbytes += copy.nbytes();
    }
    return m;
  }

  const float* vector(const std::string& name) {
    const TensorView& t = find(name);
    out_.nbytes += t.nbytes();
    auto& copy = out_.vectors.emplace_back(static_cast<std::size_t>(t.numel()));
    if (t.dtype == DType::kFloat32) {
      const auto* from = static_cast<const float*>(t.data);
      std::copy(from, from + t.numel(), copy.begin());
    } else {
      const auto* from = static_cast<const std::uint16_t*>(t.data);
      std::transform(from, from + t.numel(), copy.begin(), bf16_to_float);
    }
    return copy.data();
  }

  Linear linear(const std::string& name, bool bias = true) {
    return {matrix(name + ".weight"), bias ? vector(name + ".bias") : nullptr};
  }

  const TensorView& find(const std::string& name) const {
    const auto it = tensors_.find(name);
    check<CheckpointError>(it != tensors_.end(), "tensor '", name, "' is missing");
    return it->second;
  }

 private:
  const TensorMap& tensors_;
  DType compute_;
  ModelWeights& out_;
};

LayerWeights bind_layer(Binder& bind, const ModelConfig& c, std::int64_t index) {
  const std::string layer = "layers." + std::to_string(index) + ".";
  LayerWeights w;
  w.input_norm = bind.vector(layer + "input_layernorm.weight");
  w.q = bind.linear(layer + "self_attn.q_proj", c.attention_bias);
  w.k = bind.linear(layer + "self_attn.k_proj", c.attention_bias);
  w.v = bind.linear(layer + "self_attn.v_proj", c.attention_bias);
  w.o = bind.linear(layer + "self_attn.o_proj", c.o_attention_bias);
  w.post_attention_norm = bind.vector(layer + "post_attention_layernorm.weight");
  w.gate = bind.linear(layer + "mlp.gate_proj", c.mlp_bias);
  w.up = bind.linear(layer + "mlp.up_proj", c.mlp_bias);
  w.down = bind.linear(layer + "mlp.down_proj", c.mlp_bias);
  return w;
}

FmHeadWeights bind_fm_head(Binder& bind, const ModelConfig& c) {
  const std::string net = "image_head.net.";
  FmHeadWeights w;
  w.time1 = bind.linear(net + "time_embed.mlp.0");
  w.time2 = bind.linear(net + "time_embed.mlp.2");
  w.cond = bind.linear(net + "cond_embed");
  w.input = bind.linear(net + "input_proj");
  for (std::int64_t i = 0; i < c.fm_head_layers; ++i) {
    const std::string block = net + "res_blocks." + std::to_string(i) + ".";
    FmBlockWeights b;
    b.norm_weight = bind.vector(block + "in_ln.weight");
    b.norm_bias = bind.vector(block + "in_ln.bias");
    b.fc1 = bind.linear(block + "mlp.0");
    b.fc2 = bind.linear(block + "mlp.2");
    b.modulation = bind.linear(block + "adaLN_modulation.1");
    w.blocks.push_back(b);
  }
  w.final_modulation = bind.linear(net + "final_layer.adaLN_modulation.1");
  w.output = bind.linear(net + "final_layer.linear");
  return w;
}

// Bytes of the bf16 copies of float32 matrices.
void require_memory_for_copies(const TensorMap& tensors) {
  std::uint64_t need = 0;
  for (const auto& [name, view] : tensors)
    if (view.dtype == DType::kFloat32 && view.shape.size() == 2) need += view.nbytes() / 2;
  const std::uint64_t available = available_memory();
  check(available == 0 || need <= available, "bfloat16 copies of these float32 weights need ", need / 1'000'000,
        " MB, and ", available / 1'000'000, " MB are available; use float32, which reads them where they are");
}

}  // namespace

ModelWeights bind_weights(const ModelConfig& config, const TensorMap& tensors, DType compute) {
  config.validate();
  check_tensors(config, tensors);
  if (compute == DType::kBFloat16) require_memory_for_copies(tensors);
  ModelWeights w;
  w.config = config;
  Binder bind(tensors, compute, w);
  w.embed_tokens = bind.matrix("embed_tokens.weight");
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) w.layers.push_back(bind_layer(bind, config, i));
  w.norm = bind.vector("norm.weight");
  w.image_in = bind.linear("image_in_projector");
  w.image_out = bind.linear("image_out_projector");
  if (config.use_gen_pos_embed) {
    w.gen_pos_embed = bind.vector("gen_pos_embed");
    w.gen_pos_rows = bind.find("gen_pos_embed").numel() / config.hidden_size;
  }
  w.fm = bind_fm_head(bind, config);
  return w;
}

void embed_tokens(const ModelWeights& weights, std::span<const std::int64_t> ids, float* out) {
  const Matrix& table = weights.embed_tokens;
  const std::int64_t d = table.cols;
  for (const std::int64_t id : ids) {
    if (table.dtype == DType::kBFloat16) {
      const auto* row = static_cast<const std::uint16_t*>(table.data) + id * d;
      std::transform(row, row + d, out, bf16_to_float);
    } else {
      std::copy_n(static_cast<const float*>(table.data) + id * d, d, out);
    }
    out += d;
  }
}

}  // namespace nsrt
