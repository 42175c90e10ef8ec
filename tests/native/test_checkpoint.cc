#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint_files.h"
#include "core/tensor_names.h"
#include "nextstep_rt/checkpoint.h"
#include "nextstep_rt/error.h"
#include "test_kit.h"

using nsrt::Checkpoint;
using nsrt::CheckpointError;
using nsrt::ModelConfig;
using nsrt::TensorMap;
using nsrt::test::kTinyConfig;
using nsrt::test::replaced;
using nsrt::test::SafetensorsWriter;
using nsrt::test::TempDir;
using nsrt::test::tiny_weights;

namespace fs = std::filesystem;

namespace {

constexpr const char* kIndex = "model.safetensors.index.json";
const std::string kTests = NSRT_TESTS_DIR;

// The tiny model in one file.
void write_tiny(const TempDir& dir) {
  dir.write("config.json", kTinyConfig);
  dir.write("model.safetensors", tiny_weights().bytes());
}

// The tiny model in two shards: lm_head.weight alone in the second.
void write_shards(const TempDir& dir) {
  dir.write("config.json", kTinyConfig);
  dir.write("one.safetensors", tiny_weights("", "lm_head.weight").bytes());
  SafetensorsWriter second;
  second.add("lm_head.weight", "BF16", {40, 32}, 2);
  dir.write("two.safetensors", second.bytes());
  std::string map;
  for (const auto& spec : nsrt::expected_tensors(ModelConfig::from_json(kTinyConfig)))
    if (spec.name != "gen_pos_embed" && spec.name != "lm_head.weight")
      map += nsrt::str("\"", spec.name, "\":\"one.safetensors\",\n");
  dir.write(kIndex, nsrt::str(R"({"metadata":{"total_size":1},"weight_map":{)", map,
                              R"("lm_head.weight":"two.safetensors"}})"));
}

void edit_index(const TempDir& dir, std::string_view from, std::string_view to) {
  dir.write(kIndex, replaced(nsrt::test::read_bytes(dir.file(kIndex)), from, to));
}

}  // namespace

TEST(opens_the_golden_checkpoints) {
  for (const std::string& folder :
       {kTests + "/golden/tiny/model", kTests + "/golden/gqa5/model", kTests + "/../nextstep_rt/demo"}) {
    const Checkpoint model(folder);
    CHECK(model.tensors().contains("lm_head.weight"));
    CHECK(model.tensors().contains("image_head.net.final_layer.linear.bias"));
    CHECK(model.config().token_dim() == 64);
    std::uint64_t sum = 0;
    for (const auto& [name, view] : model.tensors()) sum += view.nbytes();
    CHECK(model.nbytes() == sum && sum > 1000000);
    CHECK(model.verify().empty());
  }
  CHECK(Checkpoint(kTests + "/golden/tiny/model").files().size() == 2);
}

TEST(opens_one_file_and_shards) {
  const TempDir one;
  write_tiny(one);
  const TempDir two;
  write_shards(two);
  Checkpoint a(one.str() + "/");
  Checkpoint b(two.str());
  CHECK(a.files().size() == 1 && b.files().size() == 2 && a.nbytes() == b.nbytes());
  CHECK(a.tensors().size() == b.tensors().size());
  const void* data = b.tensors().at("norm.weight").data;
  a = std::move(b);
  CHECK(a.files().size() == 2 && a.tensors().at("norm.weight").data == data);
  // Where both are there, the index wins.
  two.write("model.safetensors", "nonsense");
  CHECK(Checkpoint(two.str()).files().size() == 2);
}

TEST(model_prefix_is_taken_off) {
  const TempDir dir;
  dir.write("config.json", kTinyConfig);
  dir.write("model.safetensors", tiny_weights("model.").bytes());
  CHECK(Checkpoint(dir.str()).tensors().contains("layers.1.mlp.up_proj.weight"));
  SafetensorsWriter both = tiny_weights();
  both.add("model.norm.weight", "BF16", {32}, 2);
  dir.write("model.safetensors", both.bytes());
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "\"norm.weight\" is there twice");
}

TEST(links_like_the_hub_cache_makes_are_followed) {
  const TempDir blobs;
  write_shards(blobs);
  const TempDir dir;
  for (const char* name : {"config.json", "one.safetensors", "two.safetensors", kIndex})
    fs::create_symlink(blobs.file(name), dir.file(name));
  CHECK(Checkpoint(dir.str()).files().size() == 2);
  fs::remove(blobs.file("two.safetensors"));
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "two.safetensors: No such file");
  fs::remove(blobs.file(kIndex));
  dir.write("model.safetensors", tiny_weights().bytes());
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "index.json: No such file");
}

TEST(missing_things_are_named) {
  const TempDir dir;
  CHECK_THROWS(CheckpointError, Checkpoint(""), "not a path");
  CHECK_THROWS(CheckpointError, Checkpoint(dir.file("none")), "not a folder");
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "config.json: No such file");
  dir.write("config.json", kTinyConfig);
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "has neither model.safetensors nor");
  dir.write("config.json", "{}");
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), dir.str() + ": config.json has no \"hidden_size\"");
  CHECK_THROWS(CheckpointError, Checkpoint(dir.file("config.json")), "not a folder");
}

TEST(index_must_not_lead_out_of_the_folder) {
  const TempDir dir;
  for (const char* name : {"/etc/x.safetensors", "../two.safetensors", "a/../two.safetensors", "./two.safetensors",
                           "..", "", "a\\\\two.safetensors", "two.safetensors/", "a\\u0000.safetensors", "\\n"}) {
    write_shards(dir);
    edit_index(dir, "two.safetensors", name);
    CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "no file name inside the checkpoint's folder");
  }
  write_shards(dir);
  edit_index(dir, "\"two.safetensors\"", "7");
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "\"lm_head.weight\" is said to be in 7");
  write_shards(dir);
  edit_index(dir, "two.safetensors", "pytorch_model.bin");
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "convert the checkpoint to safetensors");
  write_shards(dir);
  edit_index(dir, "two.safetensors", "sub/two.safetensors");
  dir.write("sub/two.safetensors", nsrt::test::read_bytes(dir.file("two.safetensors")));
  CHECK(Checkpoint(dir.str()).files().size() == 2);
}

TEST(index_and_files_must_agree) {
  const TempDir dir;
  write_shards(dir);
  edit_index(dir, "two.safetensors", "three.safetensors");
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "three.safetensors: No such file");
  write_shards(dir);
  edit_index(dir, "\"norm.weight\":\"one", "\"norm.weight\":\"two");
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "index says it is in \"two.safetensors\"");
  write_shards(dir);
  edit_index(dir, "\"norm.weight\"", "\"norm.wait\"");
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "which the index does not list");
  write_shards(dir);
  edit_index(dir, "\"norm.weight\"", "\"extra\":\"two.safetensors\",\"norm.weight\"");
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "has no tensor \"extra\"");
  write_shards(dir);
  edit_index(dir, "\"norm.weight\"", "\"rotary_emb.inv_freq\":\"two.safetensors\",\"norm.weight\"");
  CHECK(Checkpoint(dir.str()).files().size() == 2);
  write_shards(dir);
  edit_index(dir, "\"norm.weight\"", "\"norm.weight\":\"one.safetensors\",\"norm.weight\"");
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "twice");
  SafetensorsWriter again;
  again.add("lm_head.weight", "BF16", {40, 32}, 2);
  again.add("norm.weight", "BF16", {32}, 2);
  write_shards(dir);
  dir.write("two.safetensors", again.bytes());
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "index says it is in \"one.safetensors\"");
  dir.write(kIndex, R"({"weight_map":{}})");
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "needs a \"weight_map\"");
}

TEST(tensors_must_fit_the_config) {
  const TempDir dir;
  dir.write("config.json", kTinyConfig);
  SafetensorsWriter writer = tiny_weights("", "norm.weight");
  writer.add("norm.weight", "BF16", {33}, 2);
  writer.add("layers.2.mlp.up_proj.weight", "BF16", {24, 32}, 2);
  dir.write("model.safetensors", writer.bytes());
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()),
               "1 unknown: \"layers.2.mlp.up_proj.weight\" [24, 32]. 1 of the wrong shape: \"norm.weight\" is [33], "
               "expected [32]");
  dir.write("model.safetensors", tiny_weights("", "lm_head.weight").bytes());
  CHECK(!Checkpoint(dir.str()).tensors().contains("lm_head.weight"));
  dir.write("model.safetensors", tiny_weights("", "embed_tokens.weight").bytes());
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "1 missing: \"embed_tokens.weight\" [40, 32]");
  dir.write("config.json", replaced(kTinyConfig, R"("attention_bias": true)", R"("attention_bias": false)"));
  dir.write("model.safetensors", tiny_weights().bytes());
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "6 unknown: \"layers.0.self_attn.k_proj.bias\" [32];");
  CHECK_THROWS(CheckpointError, Checkpoint(dir.str()), "; and 2 more");
}

TEST(gen_pos_embed_has_any_length) {
  ModelConfig config = ModelConfig::from_json(kTinyConfig);
  std::vector<float> zeros(40 * 32 * 4);
  TensorMap tensors;
  for (const auto& spec : nsrt::expected_tensors(config))
    if (spec.name != "gen_pos_embed") tensors[spec.name] = {zeros.data(), nsrt::DType::kFloat32, spec.shape};
  nsrt::check_tensors(config, tensors);
  config.use_gen_pos_embed = true;
  CHECK_THROWS(CheckpointError, nsrt::check_tensors(config, tensors), "1 missing: \"gen_pos_embed\" [n, 32]");
  const std::vector<std::vector<std::int64_t>> good = {{5, 32}, {1, 5, 32}, {1, 32}};
  const std::vector<std::vector<std::int64_t>> bad = {{32},       {2, 5, 32}, {1, 1, 5, 32}, {5, 31}, {0, 32},
                                                      {1, 0, 32}, {}};
  for (const auto& shape : good) {
    tensors["gen_pos_embed"] = {zeros.data(), nsrt::DType::kBFloat16, shape};
    nsrt::check_tensors(config, tensors);
  }
  for (const auto& shape : bad) {
    tensors["gen_pos_embed"] = {zeros.data(), nsrt::DType::kBFloat16, shape};
    CHECK_THROWS(CheckpointError, nsrt::check_tensors(config, tensors), "expected [n, 32]");
  }
  tensors["gen_pos_embed"] = {nullptr, nsrt::DType::kFloat32, {5, 32}};
  tensors["norm.weight"].data = reinterpret_cast<const char*>(zeros.data()) + 2;
  CHECK_THROWS(CheckpointError, nsrt::check_tensors(config, tensors),
               "2 with unusable data: \"gen_pos_embed\" is null; \"norm.weight\" is not aligned to 4 bytes");
  config.head_dim = 7;
  CHECK_THROWS(CheckpointError, nsrt::check_tensors(config, tensors), "head_dim is 7");
}

TEST(verify_names_the_tensors_with_nan) {
  const TempDir dir;
  dir.write("config.json", kTinyConfig);
  dir.write("model.safetensors", tiny_weights("model.").bytes());
  std::string bytes = nsrt::test::read_bytes(dir.file("model.safetensors"));
  bytes[bytes.size() - 1] = '\x7F';
  bytes[bytes.size() - 2] = '\x80';
  dir.write("model.safetensors", bytes);
  const Checkpoint model(dir.str());
  std::uint64_t last = 0;
  const auto watch = [&](std::uint64_t done, std::uint64_t total) {
    last = done;
    return total == model.nbytes();
  };
  CHECK(model.verify(watch) == std::vector<std::string>({"image_head.net.final_layer.linear.bias"}));
  CHECK(last == model.nbytes());
}

TEST(verify_reports_progress_and_can_be_stopped) {
  const TempDir dir;
  const std::string config = replaced(kTinyConfig, R"("vocab_size": 40)", R"("vocab_size": 600000)");
  dir.write("config.json", config);
  dir.write("model.safetensors", nsrt::test::weights_of(config).bytes());
  const Checkpoint model(dir.str());
  CHECK(model.nbytes() > (std::uint64_t{64} << 20));
  std::vector<std::uint64_t> seen;
  const auto watch = [&](std::uint64_t done, std::uint64_t) {
    seen.push_back(done);
    return true;
  };
  CHECK(model.verify(watch).empty());
  CHECK(seen.size() == 2 && seen[0] < seen[1] && seen[1] == model.nbytes());
  int calls = 0;
  CHECK(model.verify([&](std::uint64_t, std::uint64_t) { return ++calls < 1; }).empty());
  CHECK(calls == 1);
  CHECK_THROWS(nsrt::Cancelled, model.verify([](std::uint64_t, std::uint64_t) -> bool { throw nsrt::Cancelled("x"); }),
               "x");
}
