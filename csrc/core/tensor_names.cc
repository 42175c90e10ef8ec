#include "core/tensor_names.h"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "core/check.h"
#include "core/json.h"
#include "core/tables.h"

namespace nsrt {
namespace {

constexpr std::string_view kGenPosEmbed = "gen_pos_embed";
constexpr std::size_t kNamed = 4;  // tensors named per kind of fault; the rest are counted

class SpecList {
 public:
  void vector(std::string name, std::int64_t size) { add(std::move(name), {size}); }
  void add(std::string name, std::vector<std::int64_t> shape, bool required = true) {
    specs_.push_back({std::move(name), std::move(shape), required});
  }
  void linear(const std::string& name, std::int64_t out, std::int64_t in, bool bias = true) {
    add(name + ".weight", {out, in});
    if (bias) vector(name + ".bias", out);
  }
  std::vector<TensorSpec> take() { return std::move(specs_); }

 private:
  std::vector<TensorSpec> specs_;
};

std::string indexed(std::string stem, std::int64_t index) {
  stem += std::to_string(index);
  stem += ".";
  return stem;
}

void add_backbone_layer(SpecList& list, const ModelConfig& c, std::int64_t index) {
  const std::string layer = indexed("layers.", index);
  const std::int64_t q = c.num_attention_heads * c.head_dim;
  const std::int64_t kv = c.num_key_value_heads * c.head_dim;
  list.vector(layer + "input_layernorm.weight", c.hidden_size);
  list.linear(layer + "self_attn.q_proj", q, c.hidden_size, c.attention_bias);
  list.linear(layer + "self_attn.k_proj", kv, c.hidden_size, c.attention_bias);
  list.linear(layer + "self_attn.v_proj", kv, c.hidden_size, c.attention_bias);
  list.linear(layer + "self_attn.o_proj", c.hidden_size, q, c.o_attention_bias);
  list.vector(layer + "post_attention_layernorm.weight", c.hidden_size);
  list.linear(layer + "mlp.gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
  list.linear(layer + "mlp.up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
  list.linear(layer + "mlp.down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
}

void add_fm_head(SpecList& list, const ModelConfig& c) {
  const std::string net = "image_head.net.";
  const std::int64_t f = c.fm_head_dim;
  list.linear(net + "time_embed.mlp.0", f, kTimeDims);
  list.linear(net + "time_embed.mlp.2", f, f);
  list.linear(net + "cond_embed", f, c.hidden_size);
  list.linear(net + "input_proj", f, c.token_dim());
  for (std::int64_t i = 0; i < c.fm_head_layers; ++i) {
    const std::string block = indexed(net + "res_blocks.", i);
    list.vector(block + "in_ln.weight", f);
    list.vector(block + "in_ln.bias", f);
    list.linear(block + "mlp.0", c.fm_mlp_dim(), f);
    list.linear(block + "mlp.2", f, c.fm_mlp_dim());
    list.linear(block + "adaLN_modulation.1", 3 * f, f);
  }
  list.linear(net + "final_layer.adaLN_modulation.1", 2 * f, f);
  list.linear(net + "final_layer.linear", c.token_dim(), f);
}

bool fits(const TensorSpec& spec, const std::vector<std::int64_t>& found) {
  const std::size_t lead = spec.name == kGenPosEmbed && found.size() == 3 && found[0] == 1 ? 1 : 0;
  return std::equal(found.begin() + static_cast<std::ptrdiff_t>(lead), found.end(), spec.shape.begin(),
                    spec.shape.end(),
                    [](std::int64_t have, std::int64_t want) { return want == -1 ? have > 0 : have == want; });
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i != 0) out += ", ";
    out += shape[i] == -1 ? "n" : std::to_string(shape[i]);
  }
  return out + "]";
}

// Collects the tensors with one kind of fault: names the first few, counts the rest.
class Fault {
 public:
  explicit Fault(std::string_view kind) : kind_(kind) {}
  void add(std::string_view name, const std::string& detail) {
    if (++count_ > kNamed) return;
    if (count_ != 1) text_ += "; ";
    text_ += quoted(name);
    text_ += " ";
    text_ += detail;
  }
  void report(std::string& out) const {
    if (count_ == 0) return;
    out += str(out.empty() ? "" : ". ", count_, " ", kind_, ": ", text_);
    if (count_ > kNamed) out += str("; and ", count_ - kNamed, " more");
  }

 private:
  std::string_view kind_;
  std::size_t count_ = 0;
  std::string text_;
};

}  // namespace

std::vector<TensorSpec> expected_tensors(const ModelConfig& config) {
  SpecList list;
  list.add("embed_tokens.weight", {config.vocab_size, config.hidden_size});
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) add_backbone_layer(list, config, i);
  list.vector("norm.weight", config.hidden_size);
  // Image tokens come from the flow-matching head: a checkpoint without this one draws all the same.
  list.add("lm_head.weight", {config.vocab_size, config.hidden_size}, false);
  list.linear("image_in_projector", config.hidden_size, config.token_dim());
  list.linear("image_out_projector", config.hidden_size, config.hidden_size);
  list.add(std::string(kGenPosEmbed), {-1, config.hidden_size}, config.use_gen_pos_embed);
  add_fm_head(list, config);
  return list.take();
}

void check_tensors(const ModelConfig& config, const TensorMap& tensors) {
  config.validate();
  Fault missing("missing");
  Fault unknown("unknown");
  Fault misshapen("of the wrong shape");
  Fault unusable("with unusable data");
  std::unordered_map<std::string_view, const TensorSpec*> known;
  const std::vector<TensorSpec> specs = expected_tensors(config);
  for (const TensorSpec& spec : specs) {
    known.emplace(spec.name, &spec);
    if (spec.required && !tensors.contains(spec.name)) missing.add(spec.name, shape_text(spec.shape));
  }
  for (const auto& [name, view] : tensors) {
    const auto it = known.find(name);
    if (it == known.end()) {
      unknown.add(name, shape_text(view.shape));
    } else if (!fits(*it->second, view.shape)) {
      misshapen.add(name, str("is ", shape_text(view.shape), ", expected ", shape_text(it->second->shape)));
    } else if (view.data == nullptr) {
      unusable.add(name, "is null");
    } else if (reinterpret_cast<std::uintptr_t>(view.data) % item_size(view.dtype) != 0) {
      unusable.add(name, str("is not aligned to ", item_size(view.dtype), " bytes"));
    }
  }
  std::string text;
  for (const Fault* fault : {&missing, &unknown, &misshapen, &unusable}) fault->report(text);
  check<CheckpointError>(text.empty(), "the tensors do not fit the config: ", text,
                         ". Check that config.json and the weights are of one NextStep-1 checkpoint");
}

}  // namespace nsrt
