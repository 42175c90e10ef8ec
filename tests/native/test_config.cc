#include <cmath>
#include <limits>
#include <string>

#include "checkpoint_files.h"
#include "nextstep_rt/config.h"
#include "nextstep_rt/error.h"
#include "test_kit.h"

using nsrt::CheckpointError;
using nsrt::ModelConfig;
using nsrt::test::kTinyConfig;
using nsrt::test::replaced;

namespace {

ModelConfig with(std::string_view from, std::string_view to) {
  return ModelConfig::from_json(replaced(kTinyConfig, from, to));
}

ModelConfig plus(std::string_view members) { return with("{", nsrt::str("{", members, ",")); }

ModelConfig tiny() { return ModelConfig::from_json(kTinyConfig); }

}  // namespace

TEST(reads_the_released_keys) {
  const ModelConfig c = tiny();
  CHECK(c.hidden_size == 32 && c.intermediate_size == 24 && c.num_hidden_layers == 2);
  CHECK(c.num_attention_heads == 2 && c.num_key_value_heads == 1 && c.head_dim == 32);
  CHECK(c.rms_norm_eps == 1e-6 && c.rope_theta == 1e6);
  CHECK(c.vocab_size == 40 && c.max_position_embeddings == 128);
  CHECK(c.attention_bias && !c.o_attention_bias && !c.mlp_bias && !c.tie_word_embeddings);
  CHECK(c.latent_size == 4 && c.latent_patch_size == 2 && c.latent_channels == 2 && c.token_dim() == 8);
  CHECK(c.boi == 1 && c.eoi == 2 && c.image_placeholder_id == 3 && c.pad_token_id == 0);
  CHECK(c.fm_head_dim == 16 && c.fm_head_layers == 1 && c.fm_head_mlp_ratio == 1.0 && c.fm_mlp_dim() == 16);
  CHECK(!c.use_gen_pos_embed && c.vae_name_or_path == "vae/");
}

TEST(optional_keys_have_their_defaults) {
  CHECK(with(R"("num_key_value_heads": 1,)", "").num_key_value_heads == 2);
  CHECK(with(R"("pad_token_id_added": 0,)", R"("pad_token_id_added": null,)").pad_token_id == -1);
  CHECK(with(R"("boi": 1,)", "").boi == -1);
  CHECK(with(R"("vae_name_or_path": "vae/")", R"("vae_name_or_path": null)").vae_name_or_path == "vae/");
  CHECK(with(R"("o_attention_bias": false,)", "").o_attention_bias);
  CHECK(with(R"("o_attention_bias": false,)", R"("o_attention_bias": null,)").o_attention_bias);
  CHECK(plus(R"("fm_head_mlp_ratio": 2.5)").fm_mlp_dim() == 40);
  CHECK(with("\"head_dim\": 32", "\"head_dim\": 64.0").head_dim == 64);
}

TEST(head_dim_follows_from_hidden_size) {
  const std::string text = replaced(kTinyConfig, R"("head_dim": 32,)", "");
  CHECK(ModelConfig::from_json(replaced(text, R"("hidden_size": 32)", R"("hidden_size": 80)")).head_dim == 40);
  CHECK_THROWS(CheckpointError, ModelConfig::from_json(replaced(text, R"("hidden_size": 32)", R"("hidden_size": 33)")),
               "hidden_size 33 is not a multiple of num_attention_heads 2");
  CHECK_THROWS(CheckpointError,
               ModelConfig::from_json(replaced(text, R"("num_attention_heads": 2)", R"("num_attention_heads": 0)")),
               "num_attention_heads 0");
}

TEST(renamed_keys_are_read) {
  const ModelConfig c = ModelConfig::from_json(
      replaced(kTinyConfig, R"("latent_size": 4, "latent_patch_size": 2, "latent_channels": 2)",
               R"("image_size": 4, "patch_size": 2, "num_channels": 2, "attention_use_qk_norm": null,
                  "use_mlp_before_lm_head": false, "hw_aspect_ratios_ids": [[1, 2]])"));
  CHECK(c.latent_size == 4 && c.latent_patch_size == 2 && c.latent_channels == 2);
  CHECK(with(R"("fm_head_dim": 16, "fm_head_layers": 1)", R"("genloss_width": 24, "genloss_depth": 3)").fm_head_dim ==
        24);
  CHECK(plus(R"("image_size": 4)").latent_size == 4);
  CHECK_THROWS(CheckpointError, plus(R"("image_size": 64)"),
               R"("latent_size" and "image_size" are two names of one thing)");
  CHECK_THROWS(CheckpointError, plus(R"("attention_use_qk_norm": true)"), "\"attention_use_qk_norm\" is true");
  CHECK_THROWS(CheckpointError, plus(R"("use_mlp_before_lm_head": true)"), "\"use_mlp_before_lm_head\" is true");
  CHECK_THROWS(CheckpointError, plus(R"("hidden_act": "gelu")"), "\"gelu\"");
  CHECK(plus(R"("hidden_act": "silu")").hidden_size == 32);
}

TEST(rope_theta_at_every_place) {
  const std::string_view top = R"("rope_theta": 1000000.0,)";
  CHECK(with(top, R"("rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},)").rope_theta == 5000.0);
  CHECK(with(top, R"("rope_scaling": {"rope_theta": 5000, "type": "default"},)").rope_theta == 5000.0);
  CHECK(plus(R"("rope_scaling": null)").rope_theta == 1e6);
  CHECK(plus(R"("rope_parameters": {"rope_theta": 1e6})").rope_theta == 1e6);
  CHECK_THROWS(CheckpointError, plus(R"("rope_parameters": {"rope_theta": 1e4})"), "rope_theta twice");
  CHECK_THROWS(CheckpointError, plus(R"("rope_scaling": {"rope_type": "yarn", "factor": 4})"), "\"yarn\"");
  CHECK_THROWS(CheckpointError, plus(R"("rope_scaling": {"type": "linear", "factor": 4})"), "\"linear\"");
  CHECK_THROWS(CheckpointError, plus(R"("rope_scaling": 3)"), "expected an object");
  CHECK_THROWS(CheckpointError, plus(R"("rope_parameters": {"partial_rotary_factor": 0.5})"), "partial_rotary_factor");
  CHECK_THROWS(CheckpointError, with(top, ""), "no \"rope_theta\"");
}

TEST(wrong_types_name_key_and_value) {
  CHECK_THROWS(CheckpointError, with(R"("hidden_size": 32)", R"("hidden_size": "32")"),
               R"("hidden_size" is "32", expected an integer)");
  CHECK_THROWS(CheckpointError, with(R"("hidden_size": 32)", R"("hidden_size": 32.5)"), R"("hidden_size" is 32.5)");
  CHECK_THROWS(CheckpointError, with(R"("mlp_bias": false)", R"("mlp_bias": 0)"), "expected true or false");
  CHECK_THROWS(CheckpointError, with(R"("vae_name_or_path": "vae/")", R"("vae_name_or_path": 1)"), "expected a string");
  CHECK_THROWS(CheckpointError, with(R"("rms_norm_eps": 1e-06)", R"("rms_norm_eps": "1e-06")"), "expected a number");
  CHECK_THROWS(CheckpointError, with(R"("vocab_size": 40,)", ""), "no \"vocab_size\"");
  CHECK_THROWS(CheckpointError, with(R"("vocab_size": 40)", R"("vocab_size": null)"), "no \"vocab_size\"");
  CHECK_THROWS(CheckpointError, ModelConfig::from_json("[]"), "expected an object");
  CHECK_THROWS(CheckpointError, ModelConfig::from_json(""), "config.json: not valid JSON");
  CHECK_THROWS(CheckpointError, plus(R"("hidden_size": 32)"), "twice");
}

TEST(values_that_do_not_fit) {
  CHECK_THROWS(CheckpointError, with(R"("hidden_size": 32)", R"("hidden_size": 0)"), "hidden_size is 0");
  CHECK_THROWS(CheckpointError, with(R"("hidden_size": 32)", R"("hidden_size": 9223372036854775807)"), "hidden_size");
  CHECK_THROWS(CheckpointError, with(R"("head_dim": 32)", R"("head_dim": 36)"), "multiple of 8");
  CHECK_THROWS(CheckpointError, with(R"("head_dim": 32)", R"("head_dim": 264)"), "between 32 and 256");
  CHECK_THROWS(CheckpointError, with(R"("num_key_value_heads": 1)", R"("num_key_value_heads": 3)"),
               "not a multiple of num_key_value_heads 3");
  CHECK_THROWS(CheckpointError, with(R"("num_attention_heads": 2)", R"("num_attention_heads": 1048576)"),
               "num_attention_heads * head_dim");
  CHECK_THROWS(CheckpointError, with(R"("num_hidden_layers": 2)", R"("num_hidden_layers": 5000)"), "1024");
  CHECK_THROWS(CheckpointError, with(R"("latent_patch_size": 2)", R"("latent_patch_size": 3)"), "latent_patch_size 3");
  CHECK_THROWS(CheckpointError, with(R"("boi": 1)", R"("boi": 40)"), "boi is 40, outside the vocabulary");
  CHECK_THROWS(CheckpointError, with(R"("boi": 1)", R"("boi": 3)"), "three different tokens");
  CHECK_THROWS(CheckpointError, with(R"("rms_norm_eps": 1e-06)", R"("rms_norm_eps": 0)"), "rms_norm_eps");
  CHECK_THROWS(CheckpointError, with("1000000.0", "-1"), "rope_theta is -1");
  CHECK_THROWS(CheckpointError, plus(R"("fm_head_mlp_ratio": 0.01)"), "fm_head_dim * fm_head_mlp_ratio is 0");
}

TEST(validate_holds_off_nonsense_set_by_hand) {
  ModelConfig c = tiny();
  c.fm_head_mlp_ratio = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS(CheckpointError, c.validate(), "fm_head_mlp_ratio is nan");
  c = tiny();
  c.rope_theta = std::numeric_limits<double>::infinity();
  CHECK_THROWS(CheckpointError, c.validate(), "rope_theta is inf");
  c = tiny();
  c.latent_channels = std::numeric_limits<std::int64_t>::max();
  CHECK_THROWS(CheckpointError, c.validate(), "latent_channels");
  CHECK_THROWS(CheckpointError, ModelConfig().validate(), "hidden_size is 0");
}
