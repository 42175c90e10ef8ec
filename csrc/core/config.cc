#include "nextstep_rt/config.h"

#include <cmath>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "core/check.h"
#include "core/json.h"

namespace nsrt {
namespace {

// Bounds far above any real model, so low that no product of sizes overflows 64 bits.
constexpr std::int64_t kMaxCount = std::int64_t{1} << 24;  // vocabulary, positions
constexpr std::int64_t kMaxSize = std::int64_t{1} << 20;   // widths
constexpr std::int64_t kMaxFmSize = std::int64_t{1} << 16;
constexpr std::int64_t kMaxLayers = 1024;
constexpr std::int64_t kMaxTokenDim = std::int64_t{1} << 16;

// The members of one JSON object, by key or by any of its keys: the 2026 source renamed some, and the same value may
// stand under both names. null counts as absent.
class Keys {
 public:
  Keys(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  using Names = std::initializer_list<std::string_view>;

  std::int64_t integer(Names names) const {
    const auto value = optional_integer(names);
    require(value.has_value(), names);
    return *value;
  }
  double number(Names names) const {
    const auto value = optional_number(names);
    require(value.has_value(), names);
    return *value;
  }
  std::optional<std::int64_t> optional_integer(Names names) const {
    return find<std::int64_t>(names, "an integer", [](const Json& j, auto& out) { return j.to_int(out); });
  }
  std::optional<double> optional_number(Names names) const {
    return find<double>(names, "a number", [](const Json& j, auto& out) { return j.to_double(out); });
  }
  std::optional<bool> optional_bool(Names names) const { return find<bool>(names, "true or false", copy<bool>); }
  std::optional<std::string> optional_string(Names names) const {
    return find<std::string>(names, "a string", copy<std::string>);
  }
  // A nested object; nullptr where there is none.
  const Json* optional_object(std::string_view name) const {
    const Json* json = object_.find(name);
    if (json == nullptr || json->is_null()) return nullptr;
    check<CheckpointError>(json->get<Json::Object>() != nullptr, where_, ": ", quoted(name), " is ", json->describe(),
                           ", expected an object");
    return json;
  }

 private:
  template <class T>
  static bool copy(const Json& json, T& out) {
    const T* value = json.get<T>();
    if (value != nullptr) out = *value;
    return value != nullptr;
  }

  template <class T, class Convert>
  std::optional<T> find(Names names, const char* expected, Convert convert) const {
    std::optional<T> found;
    std::string_view found_name;
    for (const std::string_view name : names) {
      const Json* json = object_.find(name);
      if (json == nullptr || json->is_null()) continue;
      T value{};
      check<CheckpointError>(convert(*json, value), where_, ": ", quoted(name), " is ", json->describe(), ", expected ",
                             expected);
      check<CheckpointError>(!found || *found == value, where_, ": ", quoted(found_name), " and ", quoted(name),
                             " are two names of one thing, but have different values");
      found = value;
      found_name = name;
    }
    return found;
  }

  void require(bool present, Names names) const {
    check<CheckpointError>(present, where_, " has no ", quoted(*names.begin()),
                           "; is this the config.json of a NextStep-1 checkpoint?");
  }

  const Json& object_;
  std::string where_;
};

// Theta stands at the top level, or in one of the nested objects that newer configs have. Scaled variants of RoPE
// would give other angles, hence wrong images, so they are refused.
double read_rope_theta(const Keys& keys) {
  std::optional<double> theta = keys.optional_number({"rope_theta"});
  for (const char* name : {"rope_parameters", "rope_scaling"}) {
    const Json* nested = keys.optional_object(name);
    if (nested == nullptr) continue;
    const Keys rope(*nested, str("config.json: ", name));
    const std::string type = rope.optional_string({"rope_type", "type"}).value_or("default");
    check<CheckpointError>(type == "default", "config.json: ", name, " has the rope type ", quoted(type),
                           "; only \"default\" is supported");
    check<CheckpointError>(rope.optional_number({"partial_rotary_factor"}).value_or(1.0) == 1.0, "config.json: ", name,
                           " has a partial_rotary_factor other than 1, which is not supported");
    const std::optional<double> inner = rope.optional_number({"rope_theta"});
    check<CheckpointError>(!theta || !inner || *theta == *inner, "config.json gives rope_theta twice, as ",
                           theta.value_or(0), " and in ", name, " as ", inner.value_or(0));
    if (inner) theta = inner;
  }
  check<CheckpointError>(theta.has_value(), "config.json has no \"rope_theta\", neither at the top nor in ",
                         "rope_parameters or rope_scaling; add it (the released code assumes 10000 without it)");
  return *theta;
}

void refuse_unsupported(const Keys& keys) {
  for (const char* name : {"attention_use_qk_norm", "use_mlp_before_lm_head"})
    check<CheckpointError>(!keys.optional_bool({name}).value_or(false), "config.json: ", quoted(name),
                           " is true, which is not supported; this checkpoint cannot be run");
  const std::string act = keys.optional_string({"hidden_act"}).value_or("silu");
  check<CheckpointError>(act == "silu", "config.json: \"hidden_act\" is ", quoted(act), "; only \"silu\" is supported");
}

void read_backbone(const Keys& keys, ModelConfig& c) {
  c.hidden_size = keys.integer({"hidden_size"});
  c.intermediate_size = keys.integer({"intermediate_size"});
  c.num_hidden_layers = keys.integer({"num_hidden_layers"});
  c.num_attention_heads = keys.integer({"num_attention_heads"});
  c.num_key_value_heads = keys.optional_integer({"num_key_value_heads"}).value_or(c.num_attention_heads);
  if (const auto head_dim = keys.optional_integer({"head_dim"})) {
    c.head_dim = *head_dim;
  } else {
    check<CheckpointError>(c.num_attention_heads > 0 && c.hidden_size % c.num_attention_heads == 0,
                           "config.json has no \"head_dim\", and hidden_size ", c.hidden_size,
                           " is not a multiple of num_attention_heads ", c.num_attention_heads);
    c.head_dim = c.hidden_size / c.num_attention_heads;
  }
  c.rms_norm_eps = keys.number({"rms_norm_eps"});
  c.rope_theta = read_rope_theta(keys);
  c.vocab_size = keys.integer({"vocab_size"});
  c.max_position_embeddings = keys.integer({"max_position_embeddings"});
  c.attention_bias = keys.optional_bool({"attention_bias"}).value_or(false);
  // The released config class lets this one follow attention_bias where it is not given.
  c.o_attention_bias = keys.optional_bool({"o_attention_bias"}).value_or(c.attention_bias);
  c.mlp_bias = keys.optional_bool({"mlp_bias"}).value_or(false);
  c.tie_word_embeddings = keys.optional_bool({"tie_word_embeddings"}).value_or(false);
}

void read_image_side(const Keys& keys, ModelConfig& c) {
  c.latent_size = keys.integer({"latent_size", "image_size"});
  c.latent_patch_size = keys.integer({"latent_patch_size", "patch_size"});
  c.latent_channels = keys.integer({"latent_channels", "num_channels"});
  c.use_gen_pos_embed = keys.optional_bool({"use_gen_pos_embed"}).value_or(false);
  c.boi = keys.optional_integer({"boi"}).value_or(-1);
  c.eoi = keys.optional_integer({"eoi"}).value_or(-1);
  c.image_placeholder_id = keys.optional_integer({"image_placeholder_id"}).value_or(-1);
  c.pad_token_id = keys.optional_integer({"pad_token_id_added"}).value_or(-1);
  // NextStep-1.1 was released with the head's size under the names of the training code.
  c.fm_head_dim = keys.integer({"fm_head_dim", "genloss_width"});
  c.fm_head_layers = keys.integer({"fm_head_layers", "genloss_depth"});
  c.fm_head_mlp_ratio = keys.optional_number({"fm_head_mlp_ratio"}).value_or(1.0);
  c.vae_name_or_path = keys.optional_string({"vae_name_or_path"}).value_or("vae/");
}

void check_range(const char* key, std::int64_t value, std::int64_t low, std::int64_t high) {
  check<CheckpointError>(value >= low && value <= high, "config: ", key, " is ", value, "; it must lie between ", low,
                         " and ", high);
}

void check_positive(const char* key, double value, double high) {
  // Written so that NaN fails.
  check<CheckpointError>(value > 0.0 && value <= high, "config: ", key, " is ", value, "; it must lie above 0 and be ",
                         "at most ", high);
}

void validate_backbone(const ModelConfig& c) {
  check_range("hidden_size", c.hidden_size, 1, kMaxSize);
  check_range("intermediate_size", c.intermediate_size, 1, kMaxSize);
  check_range("num_hidden_layers", c.num_hidden_layers, 1, kMaxLayers);
  check_range("num_attention_heads", c.num_attention_heads, 1, kMaxSize);
  check_range("num_key_value_heads", c.num_key_value_heads, 1, kMaxSize);
  check_range("head_dim", c.head_dim, 32, 256);
  check_range("vocab_size", c.vocab_size, 1, kMaxCount);
  check_range("max_position_embeddings", c.max_position_embeddings, 1, kMaxCount);
  check_positive("rms_norm_eps", c.rms_norm_eps, 1.0);
  check_positive("rope_theta", c.rope_theta, 1e18);
  check<CheckpointError>(c.head_dim % 8 == 0, "config: head_dim is ", c.head_dim, "; it must be a multiple of 8");
  check<CheckpointError>(c.num_attention_heads % c.num_key_value_heads == 0, "config: num_attention_heads ",
                         c.num_attention_heads, " is not a multiple of num_key_value_heads ", c.num_key_value_heads);
  check_range("num_attention_heads * head_dim", c.num_attention_heads * c.head_dim, 1, kMaxSize);
}

void validate_image_side(const ModelConfig& c) {
  check_range("latent_size", c.latent_size, 1, 1 << 16);
  check_range("latent_patch_size", c.latent_patch_size, 1, 1 << 8);
  check_range("latent_channels", c.latent_channels, 1, 1 << 12);
  check_range("latent_channels * latent_patch_size^2", c.token_dim(), 1, kMaxTokenDim);
  check<CheckpointError>(c.latent_size % c.latent_patch_size == 0, "config: latent_size ", c.latent_size,
                         " is not a multiple of latent_patch_size ", c.latent_patch_size);
  check_range("fm_head_dim", c.fm_head_dim, 1, kMaxFmSize);
  check_range("fm_head_layers", c.fm_head_layers, 1, kMaxLayers);
  check_positive("fm_head_mlp_ratio", c.fm_head_mlp_ratio, 1024.0);
  check_range("fm_head_dim * fm_head_mlp_ratio", c.fm_mlp_dim(), 1, kMaxFmSize);
}

void validate_tokens(const ModelConfig& c) {
  const auto check_token = [&c](const char* key, std::int64_t id) {
    check<CheckpointError>(id >= -1 && id < c.vocab_size, "config: ", key, " is ", id, ", outside the vocabulary of ",
                           c.vocab_size, " tokens");
  };
  check_token("boi", c.boi);
  check_token("eoi", c.eoi);
  check_token("image_placeholder_id", c.image_placeholder_id);
  check_token("pad_token_id_added", c.pad_token_id);
  const bool distinct = (c.boi == -1 || (c.boi != c.eoi && c.boi != c.image_placeholder_id)) &&
                        (c.eoi == -1 || c.eoi != c.image_placeholder_id);
  check<CheckpointError>(distinct, "config: boi ", c.boi, ", eoi ", c.eoi, " and image_placeholder_id ",
                         c.image_placeholder_id, " must be three different tokens");
}

}  // namespace

void ModelConfig::validate() const {
  validate_backbone(*this);
  validate_image_side(*this);
  validate_tokens(*this);
}

ModelConfig ModelConfig::from_json(const std::string& text) {
  const Json json = Json::parse(text, "config.json");
  check<CheckpointError>(json.get<Json::Object>() != nullptr, "config.json holds ", json.describe(),
                         ", expected an object");
  const Keys keys(json, "config.json");
  refuse_unsupported(keys);
  ModelConfig config;
  read_backbone(keys, config);
  read_image_side(keys, config);
  config.validate();
  return config;
}

}  // namespace nsrt
