// Damages the files of a good checkpoint in every way a seeded generator comes up with: the readers may accept the
// result or throw CheckpointError, nothing else. Run under the sanitizers.
#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>

#include "checkpoint_files.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "nextstep_rt/checkpoint.h"
#include "nextstep_rt/error.h"
#include "test_kit.h"

using nsrt::Checkpoint;
using nsrt::CheckpointError;
using nsrt::ModelConfig;
using nsrt::SafetensorsFile;
using nsrt::test::kTinyConfig;
using nsrt::test::SafetensorsWriter;
using nsrt::test::TempDir;

namespace {

class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_(seed) {}
  std::size_t below(std::size_t n) { return n == 0 ? 0 : engine_() % n; }

 private:
  std::mt19937 engine_;
};

// Pieces that are legal somewhere, so that mutants get past the first check.
constexpr std::array<std::string_view, 22> kPieces = {
    "{",    "}",    "[",   "]",       "\"",  ",",    ":",   "0",     "-1",  "1e9",    "9223372036854775807",
    "null", "true", "\\u", "\\ud800", "F32", "BF16", "I64", "99999", "1.5", "\"a\":", " "};

std::string mutate(std::string text, Random& random, std::size_t reach) {
  for (std::size_t rounds = 1 + random.below(3); rounds > 0; --rounds) {
    const std::size_t limit = std::min(reach, text.size());
    const std::size_t at = random.below(limit);
    const std::size_t length = std::min<std::size_t>(1 + random.below(12), text.size() - at);
    const std::string_view piece = kPieces[random.below(kPieces.size())];
    switch (random.below(7)) {
      case 0:
        if (!text.empty()) text[at] = static_cast<char>(random.below(256));
        break;
      case 1:
        if (!text.empty()) text[at] = static_cast<char>(text[at] ^ (1 << random.below(8)));
        break;
      case 2:
        text.erase(at, length);
        break;
      case 3:
        text.insert(at, piece);
        break;
      case 4:
        text.replace(at, std::min(length, piece.size()), piece);
        break;
      case 5:
        text.insert(random.below(limit), text.substr(at, length));
        break;
      default:
        text.resize(random.below(text.size() + 1));
    }
  }
  return text;
}

// Counts what came out; any exception but CheckpointError leaves the test.
struct Outcomes {
  int accepted = 0;
  int refused = 0;
  template <class F>
  void run(F&& action) {
    try {
      action();
      ++accepted;
    } catch (const CheckpointError& e) {
      ++refused;
      CHECK(std::string_view(e.what()).size() > 10 && std::string_view(e.what()).size() < 4000);
    }
  }
};

}  // namespace

TEST(damaged_safetensors_files) {
  SafetensorsWriter writer;
  writer.add("a.weight", "BF16", {3, 4}, 2);
  writer.add("b.weight", "F32", {5}, 4);
  writer.add("position_ids", "I64", {2}, 8);
  const std::string good = writer.bytes();
  const TempDir dir;
  Outcomes outcomes;
  for (std::uint32_t seed = 0; seed < 4000; ++seed) {
    Random random(seed);
    const std::string path = dir.write("x.safetensors", mutate(good, random, seed % 2 == 0 ? good.size() : 16));
    outcomes.run([&] {
      const SafetensorsFile file(path);
      for (const auto& [name, view] : file.tensors())
        if (view.numel() != 0) CHECK(nsrt::quoted({static_cast<const char*>(view.data), view.nbytes()}).size() > 1);
    });
  }
  CHECK(outcomes.accepted > 20 && outcomes.refused > 2000);
}

// The length of the header is made to fit again, so that all mutants reach the parser.
TEST(damaged_safetensors_headers) {
  SafetensorsWriter writer;
  writer.add("a.weight", "BF16", {3, 4}, 2);
  writer.add("b.weight", "F32", {5}, 4);
  const std::string good = writer.bytes();
  const std::string header = good.substr(8, good.size() - 8 - 44);
  const std::string data = good.substr(good.size() - 44);
  const TempDir dir;
  Outcomes outcomes;
  for (std::uint32_t seed = 0; seed < 4000; ++seed) {
    Random random(seed);
    const std::string bytes = nsrt::test::safetensors(mutate(header, random, header.size()), data);
    const std::string path = dir.write("x.safetensors", bytes);
    outcomes.run([&] { CHECK(SafetensorsFile(path).tensors().size() <= 3); });
  }
  CHECK(outcomes.accepted > 20 && outcomes.refused > 2000);
}

TEST(damaged_configs) {
  Outcomes outcomes;
  for (std::uint32_t seed = 0; seed < 4000; ++seed) {
    Random random(seed);
    const std::string text = mutate(kTinyConfig, random, std::string::npos);
    outcomes.run([&] { CHECK(nsrt::expected_tensors(ModelConfig::from_json(text)).size() > 10); });
  }
  CHECK(outcomes.accepted > 100 && outcomes.refused > 2000);
}

TEST(damaged_checkpoints) {
  const TempDir dir;
  const std::string weights = nsrt::test::tiny_weights().bytes();
  std::string map;
  for (const auto& spec : nsrt::expected_tensors(ModelConfig::from_json(kTinyConfig)))
    if (spec.name != "gen_pos_embed") map += nsrt::str(map.empty() ? "\"" : ",\"", spec.name, "\":\"w.safetensors\"");
  const std::string index = nsrt::str(R"({"weight_map":{)", map, "}}");
  const std::array<std::pair<const char*, std::string>, 3> files = {
      {{"config.json", kTinyConfig}, {"model.safetensors.index.json", index}, {"w.safetensors", weights}}};
  for (const auto& [name, text] : files) dir.write(name, text);
  CHECK(Checkpoint(dir.str()).verify().empty());
  Outcomes outcomes;
  for (std::uint32_t seed = 0; seed < 3000; ++seed) {
    Random random(seed);
    const auto& [name, text] = files[seed % 3];
    dir.write(name, mutate(text, random, seed % 2 == 0 ? text.size() : 2000));
    outcomes.run([&] { CHECK(Checkpoint(dir.str()).verify().size() < 100); });
    dir.write(name, text);
  }
  CHECK(outcomes.accepted > 20 && outcomes.refused > 1000);
}
